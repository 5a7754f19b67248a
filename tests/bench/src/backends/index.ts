import type { Backend } from '../backend.ts';
import { cloudflare } from './cloudflare.ts';
import { memory } from './memory.ts';
import { postgres } from './postgres.ts';
import { redis } from './redis.ts';

export const backends: readonly Backend[] = [memory, redis, postgres, cloudflare];

export function backend(name: string): Backend {
	const found = backends.find((it) => it.name === name);
	if (!found) throw new Error(`no such backend: ${name}; there are: ${backends.map((it) => it.name).join(', ')}`);
	return found;
}
