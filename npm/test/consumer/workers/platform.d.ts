// What of the Workers platform the package's declarations use; the whole of it can't be in one program with the types
// of Node.
declare module 'cloudflare:workers' {
  export class DurableObject<Env = unknown> {
    protected ctx: object
    protected env: Env
    constructor(ctx: object, env: Env)
  }
}
