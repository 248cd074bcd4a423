/** The door of the gateway: what other rooms may use of it. */
export { Gateway } from './gateway.ts';
export type {
  Forecast,
  GatewayClientConfig,
  GatewayConfig,
  GatewayEvent,
  GatewayOptions,
  GatewayReplicaStatus,
  GatewayStatus,
  SpaceRule,
} from './types.ts';
