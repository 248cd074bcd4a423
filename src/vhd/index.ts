/** The door of the disk formats: VHD, VHDX and raw disks, open, check, create. */
export { type OpenDiskOptions, openDisk } from './open-disk.ts';
export { type FixedFooterFields, fixedVhdFooter } from './vhd-footer.ts';
export type {
  DiskFault,
  DiskFormat,
  DiskInfo,
  DiskSubformat,
  DiskWriter,
  Extent,
  FileRange,
  VirtualDisk,
} from './virtual-disk.ts';
