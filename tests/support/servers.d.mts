export interface Server {
	readonly port: number;
	readonly url: string;
	readonly pid: number | undefined;
	/** As `kill -9`. */
	kill(): Promise<void>;
	/** Starts it again where it was. */
	restart(): Promise<void>;
	/** Ends it, and removes what it wrote. */
	stop(): Promise<void>;
}

export interface ServerOptions {
	port?: number;
	args?: readonly string[];
	/** PostgreSQL: survives a crash of the machine. */
	durable?: boolean;
}

/** Whether a URL such as `redis://` asks for a server of its own. */
export function asksForServer(url: string): boolean;
export function startServer(url: string, options?: ServerOptions): Promise<Server>;
export function startRedis(options?: ServerOptions): Promise<Server>;
export function startPostgres(options?: ServerOptions): Promise<Server>;
/** workerd with the Worker of the package. */
export function startWorkerd(options?: ServerOptions): Promise<Server>;
export function freePort(): Promise<number>;
