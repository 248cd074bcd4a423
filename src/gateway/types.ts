/** What a gateway is made of, says of itself and tells. Sizes in bytes, times in Unix milliseconds. */
import type { Ports } from '../ports.ts';
import type { Lanes, StoreEnvironment } from '../transport/index.ts';
import type { UploadFailure } from './uploader.ts';

export interface GatewayClientConfig {
  readonly name: string;
  readonly tokenFile: string;
  /** `STORE` or `STORE/PREFIX` each. */
  readonly may: readonly string[];
}

export interface GatewayConfig {
  readonly listen: { readonly host: string; readonly port: number };
  /** PEM files; without them plain HTTP, on the loopback only. */
  readonly tls?: { readonly certificate: string; readonly key: string };
  readonly cache: {
    readonly directory: string;
    readonly limitBytes: number;
    /** `tell`: a volume that is full is told, and fills on. */
    readonly lowSpace: 'act' | 'tell';
  };
  readonly stores: readonly { readonly name: string; readonly url: string }[];
  readonly clients: readonly GatewayClientConfig[];
}

/** What the free space of a volume allows. */
export type SpaceRule = (freeBytes: number, totalBytes: number) => 'ok' | 'low' | 'throttle' | 'stop';

/** How long what waits will take. */
export interface Forecast {
  waits(bytes: number): void;
  sent(bytes: number, elapsedMs: number): void;
  minutesToUpload(): number | undefined;
  level(): 'ok' | 'warning' | 'critical';
}

export type GatewayEvent =
  /** The queue of a replica was not taken by its store, and is kept in a directory. */
  | { readonly type: 'refused'; readonly place: string; readonly directory: string; readonly reason: string }
  | { readonly type: 'upload-failed'; readonly place: string; readonly code: string; readonly message: string }
  | { readonly type: 'fault'; readonly message: string };

export interface GatewayOptions {
  readonly config: GatewayConfig;
  readonly ports: Ports;
  /** Credentials of the real stores. */
  readonly environment: StoreEnvironment;
  /** To one of the stores, by its name: one that does not answer takes no lane from the others. */
  readonly lanes: (store: string) => Lanes;
  readonly spaceRule: SpaceRule;
  readonly forecast: () => Forecast;
  readonly onEvent: (event: GatewayEvent) => void;
}

/** One replica behind the gateway. */
export interface GatewayReplicaStatus {
  /** `STORE/PREFIX`; the directory, of writes in the cache that cannot be opened. */
  readonly place: string;
  readonly url: string;
  readonly queuedBytes: number;
  /** Recovery points that were answered for and are not at the store. */
  readonly points: number;
  readonly oldestMs?: number;
  /** When something of it last got through, since the start. */
  readonly movedMs?: number;
  /** Why nothing gets through. */
  readonly failure?: UploadFailure;
  readonly upload?: { readonly level: 'ok' | 'warning' | 'critical'; readonly minutes: number };
  /** Directories with queues that the store did not take. */
  readonly refused: readonly string[];
}

export interface GatewayStatus {
  /** Where it listens. */
  readonly url: string;
  readonly cache: {
    readonly directory: string;
    readonly usedBytes: number;
    readonly limitBytes: number;
    readonly lowSpace: 'act' | 'tell';
    readonly freeBytes: number;
    readonly totalBytes: number;
    readonly verdict: ReturnType<SpaceRule>;
  };
  /** Requests without a known token, or for a place that their client may not use. */
  readonly denied: number;
  readonly replicas: readonly GatewayReplicaStatus[];
}
