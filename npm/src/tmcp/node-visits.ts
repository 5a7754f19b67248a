import { AsyncLocalStorage } from 'node:async_hooks'
import { tellVisitsIn } from './visit'

// Not in visit.ts, which Workers have, too: there nothing can be required.
tellVisitsIn(new AsyncLocalStorage())

export { visits } from './visit'
