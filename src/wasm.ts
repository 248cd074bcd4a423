/** WebAssembly that is checked in as base64 (scripts/build-wasm.mjs), made into exports and the memory they work in. */

/** The library of ES2023 has no types for it. */
declare const WebAssembly: {
  readonly Module: new (code: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports?: { readonly env: { readonly memory: WasmMemory } },
  ) => { readonly exports: unknown };
  readonly Memory: new (size: { readonly initial: number }) => WasmMemory;
};

const PAGE_BYTES = 65_536;

export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

/** What a module exports that has a memory of its own; each adds its functions. */
export interface WasmExports {
  readonly memory: WasmMemory;
}

/** A memory for several modules, of at least so many bytes. */
export function newMemory(bytes: number): WasmMemory {
  return new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE_BYTES) });
}

/** A new instance, in a memory that it shares with others, or in one of its own. */
export function instantiate<T>(base64: string, memory?: WasmMemory): T {
  const module = new WebAssembly.Module(Buffer.from(base64, 'base64'));
  return new WebAssembly.Instance(module, memory && { env: { memory } }).exports as T;
}
