/** The processes that the agent runs: commands of the operator, and trackers that outlive it. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { AgentProcesses } from '../index.ts';
import { shellCommand } from './shell-command.ts';

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url));

export const agentProcesses: AgentProcesses = {
  shell: shellCommand,
  async track(name, home, listen, onTalk) {
    const args = ['track', name, '--json', '--home', home, '--listen', listen];
    // In a group of its own: what stops the agent must not take a disk away from a machine that runs on it.
    const child = spawn(process.execPath, [MAIN, ...args], { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', onTalk);
    return await new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) =>
        resolve(signal ? `it was ended by ${signal}` : `it ended with exit code ${code}`),
      );
    });
  },
};
