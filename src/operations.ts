/**
 * The item-level operations, loaded at the first call of one of them. They bring the cloud SDK and the thread pool along,
 * which cost more time to load than a look at a disk takes.
 */
import type * as agent from './agent/index.ts';

const load = (): Promise<typeof agent> => import('./agent/index.ts');

export const startAgent: typeof agent.startAgent = async (...args) => (await load()).startAgent(...args);
export const connectAgent: typeof agent.connectAgent = async (...args) => (await load()).connectAgent(...args);
export const loadConfig: typeof agent.loadConfig = async (...args) => (await load()).loadConfig(...args);
export const readConfig: typeof agent.readConfig = async (...args) => (await load()).readConfig(...args);

export const protect: typeof agent.protect = async (...args) => (await load()).protect(...args);
export const track: typeof agent.track = async (...args) => (await load()).track(...args);
export const ship: typeof agent.ship = async (...args) => (await load()).ship(...args);
export const shipTogether: typeof agent.shipTogether = async (...args) => (await load()).shipTogether(...args);
export const apply: typeof agent.apply = async (...args) => (await load()).apply(...args);
export const mirror: typeof agent.mirror = async (...args) => (await load()).mirror(...args);
export const prune: typeof agent.prune = async (...args) => (await load()).prune(...args);
export const resync: typeof agent.resync = async (...args) => (await load()).resync(...args);
export const estimateResync: typeof agent.estimateResync = async (...args) => (await load()).estimateResync(...args);
export const status: typeof agent.status = async (...args) => (await load()).status(...args);
export const points: typeof agent.points = async (...args) => (await load()).points(...args);
export const verify: typeof agent.verify = async (...args) => (await load()).verify(...args);
export const failover: typeof agent.failover = async (...args) => (await load()).failover(...args);
export const addKey: typeof agent.addKey = async (...args) => (await load()).addKey(...args);
export const removeKey: typeof agent.removeKey = async (...args) => (await load()).removeKey(...args);
export const rotateKey: typeof agent.rotateKey = async (...args) => (await load()).rotateKey(...args);
export const listKeys: typeof agent.listKeys = async (...args) => (await load()).listKeys(...args);
export const failoverPlanned: typeof agent.failoverPlanned = async (...args) => (await load()).failoverPlanned(...args);
export const commit: typeof agent.commit = async (...args) => (await load()).commit(...args);
export const cancel: typeof agent.cancel = async (...args) => (await load()).cancel(...args);
export const reverse: typeof agent.reverse = async (...args) => (await load()).reverse(...args);
export const failback: typeof agent.failback = async (...args) => (await load()).failback(...args);
