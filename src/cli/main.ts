#!/usr/bin/env node
/** The entry of the command line. */
import { setFlagsFromString } from 'node:v8';
import { run } from './run.ts';

/**
 * V8 waits longer before it optimizes a function: a command that runs for seconds spent up to a seventh of its processor time on
 * code that had no time to pay for it. Functions that run on are optimized all the same. Later versions have a tier between, and
 * do not know the flag.
 */
if (process.versions.v8.startsWith('11.')) setFlagsFromString('--interrupt-budget=500000');

await run(process.argv.slice(2));
