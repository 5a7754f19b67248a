// What of the Workers platform these tests use; the whole of it can't be in one program with the types of Node.
declare module 'cloudflare:workers' {
	export const env: Record<string, unknown>;
	export class DurableObject {
		protected ctx: { storage: { sql: { exec(query: string): { raw(): Iterable<unknown[]> } } } };
		constructor(ctx: unknown, env: unknown);
	}
}
