// Short forms of texts and notifications in scenarios, written out.

/**
 * `"text"` or `{"repeat": "x", "times": 3}`.
 *
 * @param {any} written
 * @returns {string}
 */
export function text(written) {
  return typeof written === 'string' ? written : written.repeat.repeat(written.times)
}

/**
 * A text, `{"sequence": "m", "from": 1, "to": 9}`, or a list of both.
 *
 * @param {any} written
 * @returns {string[]}
 */
export function texts(written) {
  if (Array.isArray(written)) return written.flatMap(texts)
  if (written.sequence === undefined) return [text(written)]
  return numbers(written.from, written.to).map((n) => `${written.sequence}${n}`)
}

/**
 * `{"each": {…}, "from": 1, "to": 9}` stands for notifications numbered in `params.n`.
 *
 * @param {any} written
 * @returns {any[]}
 */
export function notifications(written) {
  if (written?.each === undefined) return [written]
  const { each, from, to } = written
  return numbers(from, to).map((n) => withParam(each, 'n', n))
}

/**
 * A notification with one more parameter.
 *
 * @param {any} notification
 * @param {string} name
 * @param {unknown} value
 */
export function withParam(notification, name, value) {
  return { ...notification, params: { ...notification.params, [name]: value } }
}

/**
 * @param {number} from
 * @param {number} to
 */
export function numbers(from, to) {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, n) => from + n)
}
