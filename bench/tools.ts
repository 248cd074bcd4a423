/** The programs of others that we are measured against: whether they are here, and in which version. */
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** How each tool says its version, and where it comes from where it is missing. */
const TOOLS = {
  restic: { version: ['version'], from: 'Debian package restic' },
  borg: { version: ['--version'], from: 'Debian package borgbackup' },
  rsync: { version: ['--version'], from: 'Debian package rsync' },
  xxh64sum: { version: ['--version'], from: 'Debian package xxhash' },
  azcopy: { version: ['--version'], from: 'npm package @azure-tools/azcopy-linux, with Debian package libsecret-1-0' },
  fio: { version: ['--version'], from: 'Debian package fio' },
  'qemu-nbd': { version: ['--version'], from: 'Debian package qemu-utils' },
  'qemu-img': { version: ['--version'], from: 'Debian package qemu-utils' },
  'mkfs.ext4': { version: ['-V'], from: 'Debian package e2fsprogs' },
} as const;

export type Tool = keyof typeof TOOLS;

/** Where programs of the administrator are, also for users whose PATH leaves them out. */
const SEARCHED = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];

/** Path of a tool; undefined where it is missing. */
export function toolPath(tool: Tool): string | undefined {
  return SEARCHED.map((directory) => join(directory, tool)).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Why a tool cannot be run here; undefined if it can. */
export function missingTool(tool: Tool): string | undefined {
  return toolPath(tool) === undefined ? `${tool} is not installed (${TOOLS[tool].from})` : undefined;
}

/** Path of a tool that has to be there. @throws Error */
export function needTool(tool: Tool): string {
  const path = toolPath(tool);
  if (path === undefined) throw new Error(missingTool(tool));
  return path;
}

/** The first line in which a tool says what it is. */
export async function toolVersion(tool: Tool): Promise<string> {
  const { stdout, stderr } = await execute(needTool(tool), TOOLS[tool].version);
  return (stdout || stderr).split('\n', 1)[0]!.trim();
}
