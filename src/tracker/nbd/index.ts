/** The door of the NBD server: serves disks to NBD clients on this machine. */
export {
  ALLOCATION_HOLE,
  ALLOCATION_ZERO,
  type BlockDevice,
  DIRTY,
  type StatusExtent,
  type ZeroRequest,
} from './block-device.ts';
export { formatAddress, type NbdAddress } from './endpoint.ts';
export type { NbdEvent } from './events.ts';
export { NbdServer, type NbdServerSetup } from './server.ts';
