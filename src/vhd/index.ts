/** The door of the disk formats: open, check and create VHD, VHDX and raw disks. */
export { type CheckDiskOptions, checkDisk, type DiskCheck } from './check-disk.ts';
export { type CreateDiskOptions, createDisk } from './create-disk.ts';
export { type OpenDiskOptions, type OpenForWritingOptions, openDisk, openDiskForWriting } from './open-disk.ts';
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
  WritableDisk,
  ZeroOptions,
} from './virtual-disk.ts';
