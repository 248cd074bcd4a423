/** WebAssembly that is checked in as base64 (scripts/build-wasm.mjs), made into exports and the memory they work in. */

/** The library of ES2023 has no types for it. */
declare const WebAssembly: {
  readonly Module: new (code: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
};

/** What every module of ours exports; each adds its functions. */
export interface WasmExports {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
}

/** A new instance, with a memory of its own. */
export function instantiate<T extends WasmExports>(base64: string): T {
  return new WebAssembly.Instance(new WebAssembly.Module(Buffer.from(base64, 'base64'))).exports as T;
}
