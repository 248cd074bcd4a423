/** Lengths of time in milliseconds, so that rules read as they are said. */
export const SECOND_MS = 1000;
export const MINUTE_MS: number = 60 * SECOND_MS;
export const HOUR_MS: number = 60 * MINUTE_MS;
/** 24 hours. A day of a calendar may be shorter or longer: zone-time.ts knows. */
export const DAY_MS: number = 24 * HOUR_MS;
