// Sessions of a transport in the registry: who owns them, whether they live, and what they are doing.

import type { Engine } from '../engine'
import { ConfigError } from '../errors'
import type { ActiveRequest, Caller } from '../registry'
import { ownerOf } from '../sdk/owner'

/** Who sent a request, as the transport's `oauth` found out. */
export interface Authenticated {
  /** The access token. */
  token: string
  /** The client it was issued to. */
  clientId: string
  /** What else the verifier knows, such as the subject. */
  extra?: Record<string, unknown>
}

/** What is needed of the transport's `oauth`. */
export interface Verifier {
  verify(request: Request): Authenticated | null | undefined | Promise<Authenticated | null | undefined>
  respond?(request: Request): Response | null | undefined | Promise<Response | null | undefined>
}

/** Whose a request is: the transport's own answer, and what the application gave `respond`. */
export interface Sender {
  /** What `oauth.verify` said; `undefined` without it. */
  auth: Authenticated | undefined
  /** The request. */
  request: Request
  /** The context that was given to `respond`. */
  ctx: unknown
}

/** How owners are found. */
export interface OwnerOptions {
  /**
   * Keeps sessions in the engine's registry: a session that was terminated or closed by any replica is unknown
   * on all of them, idle ones are swept. `oauth` and `owner` imply it.
   */
  registry?: boolean
  /** The transport's own `oauth`: sessions answer their owners only, as its tokens name them. */
  oauth?: Verifier
  /**
   * What names the owner of a request; `undefined` for nobody. By default the token's client and subject
   * (`extra.sub`), or the token itself where `oauth` tells no subject.
   */
  owner?: (sender: Sender) => string | undefined | Promise<string | undefined>
}

/** What is kept of a transport's sessions in the registry. */
export class Registered {
  #oauth: Verifier | undefined
  #owner: NonNullable<OwnerOptions['owner']>

  private constructor({ oauth, owner }: OwnerOptions) {
    this.#oauth = oauth
    this.#owner = owner ?? (({ auth }) => ownerOf(auth))
  }

  /** `undefined` when the registry is not wanted. Throws `config`. */
  static of(options: OwnerOptions): Registered | undefined {
    const { registry, oauth, owner } = options
    const rules: [boolean, string][] = [
      [registry === undefined || typeof registry === 'boolean', 'registry is true or false'],
      [oauth === undefined || typeof oauth?.verify === 'function', "oauth is the transport's, with a method verify"],
      [owner === undefined || typeof owner === 'function', 'owner is a function'],
      [registry !== false || (oauth === undefined && owner === undefined), 'owners are kept in the registry'],
    ]
    for (const [holds, rule] of rules) if (!holds) throw new ConfigError(rule, 'resumable')
    return registry || oauth || owner ? new Registered(options) : undefined
  }

  /** On whose behalf a request is. */
  async caller(request: Request, ctx: unknown): Promise<Caller> {
    const auth = (await this.#oauth?.verify(request)) ?? undefined
    const owner = await this.#owner({ auth, request, ctx })
    return owner === undefined ? {} : { owner }
  }

  /** Registers a session that the transport has begun. */
  async begin({ registry }: Engine, id: string, caller: Caller): Promise<ActiveRequest> {
    await registry.create({ id, owner: caller.owner })
    return registry.beginRequest(id)
  }

  /**
   * Begins a request of a session; `undefined` when it may not pass. With `strangers`, sessions that nobody has
   * registered may.
   */
  async enter({ registry }: Engine, id: string, caller: Caller, strangers: boolean): Promise<Entered | undefined> {
    if ((await registry.get(id, caller)) !== undefined) {
      try {
        return { request: await registry.beginRequest(id) }
      } catch (error) {
        // It was closed in between.
        if ((error as { code?: string }).code === 'not_found') return undefined
        throw error
      }
    }
    return strangers && (await registry.peek(id)) === undefined ? { request: undefined } : undefined
  }
}

/** A request that may pass. */
export interface Entered {
  /** Its count in the registry, if its session is there. */
  request: ActiveRequest | undefined
}
