#!/usr/bin/env node
/** The entry of the command line. */
import { run } from './run.ts';

await run(process.argv.slice(2));
