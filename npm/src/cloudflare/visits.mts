import { AsyncLocalStorage } from 'node:async_hooks'
import { tellVisitsIn } from '../tmcp/visit.js'

tellVisitsIn(new AsyncLocalStorage())

export { visits } from '../tmcp/visit.js'
