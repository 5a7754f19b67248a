// The managers on PostgreSQL: those of tmcp's `@tmcp/session-manager-postgres` by changing an import.

import { Engine } from '../engine'
import { ConfigError } from '../errors'
import { InfoSessionManager } from './info'
import { type Kind, type ManagerOptions, type Source, sourceOf, withParameters } from './source'
import { StreamSessionManager } from './streams'
import { SubscriptionManager } from './subscriptions'

/** How a manager on PostgreSQL is made. Managers with the same of all of this share one engine of the process. */
export interface PostgresManagerOptions extends Omit<ManagerOptions, 'url'> {
  /** `postgresql://user:password@host:5432/database`, with the parameters of libpq. */
  connectionString?: string
  /** `false`: no table is made, and what is missing is said. */
  create?: boolean
  /** The schema of the tables (default: the first of the connection's search path). */
  schema?: string
  /** `relaxed`: a crash of the server may lose the last events, which is reported as a gap (default: `strict`). */
  durability?: 'strict' | 'relaxed'
}

/**
 * As tmcp's, with the names of the tables. Managers that are to share one engine, and to know the same
 * sessions, are given the same names.
 */
export interface PostgresTableOptions extends PostgresManagerOptions {
  /** The table of sessions (default: `tmcp_sessions`). */
  tableName?: string
  /** The tables of info (default: `tmcp_session_client_info` and so on). */
  tableNames?: {
    clientCapabilities?: string
    clientInfo?: string
    logLevel?: string
    subscriptions?: string
  }
}

/** As tmcp's. Its table is not needed: notifications of any size have their place among the others. */
export interface PostgresSubscriptionOptions extends PostgresManagerOptions {
  /** Accepted, and not used. */
  tableName?: string
}

type Given<T> = string | T | Engine

const POSTGRES_URL = /^postgres(ql)?:/i

/** The engine of these managers: connected in the background, one a process for the same URL and options. */
function postgresSource(
  argument: Given<PostgresManagerOptions>,
  kind: Kind,
  tables: (options: object) => { [name: string]: string | undefined },
): Source {
  if (argument instanceof Engine) return sourceOf(argument, kind)
  const given = typeof argument === 'string' ? { connectionString: argument } : argument
  if (typeof given !== 'object' || given === null) {
    throw new ConfigError('a manager on Postgres is made with a connectionString', 'connect')
  }
  const { connectionString, create, schema, durability, ...rest } = given
  const { tableName: _table, tableNames: _tables, ...options } = rest as typeof rest & PostgresTableOptions
  if (options.engine !== undefined) {
    if (connectionString === undefined) return sourceOf(options, kind)
    throw new ConfigError('a manager has a connectionString or an engine, not both', 'connect')
  }
  if (typeof connectionString !== 'string' || !POSTGRES_URL.test(connectionString)) {
    throw new ConfigError('a connectionString begins with postgresql://', 'connect')
  }
  if (create !== undefined && typeof create !== 'boolean') throw new ConfigError('create is true or false', 'connect')
  // As with tmcp, tables are made by default.
  const makes = create === false ? 'false' : undefined
  const url = withParameters(connectionString, { schema, durability, create: makes, ...tables(given) })
  return sourceOf({ ...options, url }, kind)
}

const tablesOf = ({ tableName, tableNames = {} }: PostgresTableOptions) => ({
  table: tableName,
  client_capabilities_table: tableNames.clientCapabilities,
  client_info_table: tableNames.clientInfo,
  log_level_table: tableNames.logLevel,
  subscriptions_table: tableNames.subscriptions,
})

/**
 * Takes the place of tmcp's `PostgresStreamSessionManager`: streams that can be resumed on any process, and
 * payloads of any size and content. It connects in the background and keeps at it; calls wait for that, or
 * fail with `unavailable`.
 *
 * @example
 * ```ts
 * import { PostgresInfoSessionManager, PostgresStreamSessionManager, resumable } from 'mcp-sessions/tmcp'
 *
 * declare const connectionString: string
 * const makeManagers = () => ({
 *   streams: new PostgresStreamSessionManager({ connectionString }),
 *   info: new PostgresInfoSessionManager({ connectionString }),
 * })
 * // const transport = resumable(new HttpTransport(server, { sessionManager }), { sessionManager })
 * console.log(typeof resumable, typeof makeManagers)
 * ```
 */
export class PostgresStreamSessionManager extends StreamSessionManager {
  /** A connection string, options, or an engine. Throws `config`. */
  constructor(argument: string | PostgresTableOptions | Engine) {
    super(postgresSource(argument, 'streams', tablesOf))
  }
}

/** The name that {@link PostgresStreamSessionManager} once had. */
export class PostgresSessionManager extends PostgresStreamSessionManager {}

/**
 * Takes the place of tmcp's `PostgresInfoSessionManager`: in the same tables, with a time to live, and served
 * from memory while nothing changes.
 *
 * @example
 * ```ts
 * import { PostgresInfoSessionManager } from 'mcp-sessions/tmcp'
 *
 * declare const connectionString: string
 * const makeInfo = () => new PostgresInfoSessionManager({ connectionString, create: false })
 * console.log(typeof makeInfo)
 * ```
 */
export class PostgresInfoSessionManager extends InfoSessionManager {
  /** A connection string, options, or an engine. Throws `config`. */
  constructor(argument: string | PostgresTableOptions | Engine) {
    super(postgresSource(argument, 'info', tablesOf))
  }
}

/**
 * Takes the place of tmcp's `PostgresSubscriptionManager`: notifications reach the subscriptions of every
 * process, and one that is stuck holds up nobody.
 *
 * @example
 * ```ts
 * import { PostgresSubscriptionManager } from 'mcp-sessions/tmcp'
 *
 * declare const connectionString: string
 * const makeSubscriptions = () => new PostgresSubscriptionManager({ connectionString })
 * // new HttpTransport(server, { subscriptionManager: makeSubscriptions() })
 * console.log(typeof makeSubscriptions)
 * ```
 */
export class PostgresSubscriptionManager extends SubscriptionManager {
  /** A connection string, options, or an engine. Throws `config`. */
  constructor(argument: string | PostgresSubscriptionOptions | Engine) {
    super(postgresSource(argument, 'subscriptions', () => ({})))
  }
}
