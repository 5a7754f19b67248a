// What must not compile of the classes for Workers.
import type * as theirs from '@tmcp/session-manager'
import {
  DurableObjectStreamSessionManager,
  DurableObjectSubscriptionManager,
  gateway,
  KVInfoSessionManager,
} from 'mcp-sessions/cloudflare'

// error TS2345
new DurableObjectStreamSessionManager({ shards: 4 })
// error TS2353
new DurableObjectStreamSessionManager('OBJECTS', { url: 'memory://hub' })
// error TS2322
new DurableObjectSubscriptionManager('OBJECTS', { shards: '4' })
// error TS2345
new KVInfoSessionManager(7)
// error TS2740
export const info: theirs.InfoSessionManager = new DurableObjectStreamSessionManager()
// error TS2739
export const streams: theirs.StreamSessionManager = new KVInfoSessionManager()
// error TS2561
gateway({}, { tokn: 'secret' })
