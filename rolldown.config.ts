/**
 * The program in a few files: main.js, what it loads on demand, and the thread. Loading a file costs Node 20 a millisecond, and
 * a command needs up to 340 of ours. The library stays as it is compiled, file by file; packages of others stay outside.
 */
import { defineConfig } from 'rolldown';

export default defineConfig({
  input: { main: 'src/cli/main.ts', thread: 'src/workers/thread.ts' },
  platform: 'node',
  external: /^[^./]/,
  output: {
    dir: 'dist/cli',
    cleanDir: true,
    // Flat: a module that names a file beside it (the thread, main.js) finds it from whatever file it comes to lie in.
    chunkFileNames: '[name]-[hash].js',
    sourcemap: true,
  },
});
