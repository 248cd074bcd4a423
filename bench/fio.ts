/** fio as an NBD client: what it wrote, how fast, and how long single writes took. */
import { tmpdir } from 'node:os';
import { withDirectory } from './guard.ts';
import { run } from './measure.ts';

/** What a job of random writes came to. */
export interface Written {
  readonly writtenBytes: number;
  readonly writesPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

interface FioWrite {
  readonly io_bytes: number;
  readonly iops: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

/** Runs a job of random writes of incompressible data, to its end or `until` then; `options` are those of fio. */
export async function randomWrites(
  uri: string,
  options: Readonly<Record<string, string | number>>,
  until?: Promise<unknown>,
): Promise<Written> {
  return await withDirectory(tmpdir(), 'blockferry-fio-', async (folder) => {
    const job = { name: 'job', ioengine: 'nbd', uri, rw: 'randwrite', refill_buffers: 1, randrepeat: 1, ...options };
    const args = Object.entries(job).map(([key, value]) => `--${key}=${value}`);
    const { stdout } = await run(['fio', ...args, '--output-format=json'], { cwd: folder, ...(until && { until }) });
    // The library under its NBD engine may talk before the JSON begins.
    const parsed = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
      jobs: readonly { error: number; write: FioWrite }[];
    };
    const { error, write } = parsed.jobs[0]!;
    if (error !== 0) throw new Error(`fio: error ${error} at ${uri}`);
    const microseconds = (percentile: string): number =>
      Math.round((write.clat_ns.percentile?.[percentile] ?? Number.NaN) / 1000);
    return {
      writtenBytes: write.io_bytes,
      writesPerSecond: Math.round(write.iops),
      p50Us: microseconds('50.000000'),
      p99Us: microseconds('99.000000'),
      p999Us: microseconds('99.900000'),
    };
  });
}
