/** The discarding server as a process of its own: it says its URL on stdout and serves until its stdin ends. */
import { startDiscardingServer } from './discarding-server.ts';

const server = await startDiscardingServer();
process.stdout.write(`${server.url}\n`);
process.stdin.on('end', () => void server.close()).resume();
