// What of the Workers platform is used here. The whole of it is in @cloudflare/workers-types, which can't
// be in one program with the types of Node.

declare module 'cloudflare:workers' {
  export class DurableObject<Env = unknown> {
    protected ctx: import('./platform.mjs').ObjectState
    protected env: Env
    constructor(ctx: import('./platform.mjs').ObjectState, env: Env)
  }
  export const env: Record<string, unknown>
  export function waitUntil(promise: Promise<unknown>): void
}

declare module '*.wasm' {
  const module: object
  export default module
}

declare module '*/sync-layer.mjs' {
  export function initSync(options: { module: object }): void
  export class SyncLayer {
    constructor(host: import('./platform.mjs').Host)
    message(node: string, message: Uint8Array): boolean
    closed(node: string, heardMs: number): void
    alarm(): void
    ask(options: string, question: string): string
    open(node: string, options: string, opening: string): string | undefined
    listen(node: string, options: string, listening: string): string | undefined
    free(): void
  }
}
