import { readFileSync } from 'node:fs';

/** The installed version of a package that is measured against. */
export function version(name: string): string {
	const file = new URL(`../node_modules/${name}/package.json`, import.meta.url);
	return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
