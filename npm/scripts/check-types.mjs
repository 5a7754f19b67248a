// Type checks: consumers of the package compiled with tsc, against the real tmcp packages.
//
// Each folder of test/consumer is a project. In `*.ok.*` nothing may be wrong; in `*.wrong.*` every use
// under a `// error TS…` comment must be refused with that very code, and nothing else may be.

import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = join(dirname(fileURLToPath(import.meta.url)), '..')
const compiler = join(here, 'node_modules/typescript/bin/tsc')
const consumers = join(here, 'test/consumer')
const EXPECTED = /^\s*\/\/ error (TS\d+)/

let passed = 0
let failed = 0

checkExamples()
for (const project of readdirSync(consumers, { withFileTypes: true })) {
  if (project.isDirectory()) checkProject(join(consumers, project.name))
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 || passed === 0 ? 1 : 0

/** The examples in the sources' comments are consumers, too. */
function checkExamples() {
  const folder = join(here, 'node_modules/.cache/examples')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const sources = readdirSync(join(here, 'src'), { recursive: true }).filter((name) => name.endsWith('.ts'))
  let count = 0
  for (const source of sources) {
    const text = readFileSync(join(here, 'src', source), 'utf8')
    for (const [, example] of text.matchAll(/^ \* ```ts\n((?: \*.*\n)*?) \* ```$/gm)) {
      count += 1
      const name = `${source.replace(/\W+/g, '-')}-${count}.ok.mts`
      writeFileSync(join(folder, name), `${example.replace(/^ \* ?/gm, '')}export {}\n`)
    }
  }
  report('the sources have examples', count > 5 ? [] : [`there are ${count}`])
  const extended = relative(folder, join(consumers, 'esm/tsconfig.json'))
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ extends: extended, include: ['*.mts'] }))
  checkProject(folder)
}

function checkProject(folder) {
  const { stdout, stderr } = spawnSync(process.execPath, [compiler, '--pretty', 'false', '-p', folder], {
    cwd: here,
    encoding: 'utf8',
  })
  const errors = stdout.split('\n').map(parse).filter(Boolean)
  const elsewhere = stdout.split('\n').filter((line) => line.includes('error TS') && parse(line) === undefined)
  report(`${relative(consumers, folder)}: compiles`, stderr === '' ? elsewhere : [stderr, ...elsewhere])
  const files = readdirSync(folder).filter((name) => /\.(ok|wrong)\.[cm]?ts$/.test(name))
  report(`${relative(consumers, folder)}: has consumers`, files.length > 0 ? [] : ['there are none'])
  for (const name of files) checkFile(join(folder, name), errors)
  const known = new Set(files.map((name) => join(folder, name)))
  // Our own declarations are checked, too; those of others are theirs to mend.
  const strange = errors.filter((error) => !known.has(error.file) && !error.file.includes('/node_modules/'))
  report(`${relative(consumers, folder)}: our declarations are right`, strange.map(told))
}

/** Every expectation is a check of its own; so is that there are no other errors. */
function checkFile(file, all) {
  const name = relative(consumers, file)
  const errors = all.filter((error) => error.file === file)
  const lines = readFileSync(file, 'utf8').split('\n')
  const met = new Set()
  for (const [index, line] of lines.entries()) {
    const code = line.match(EXPECTED)?.[1]
    if (code === undefined) continue
    // The wrong use goes on until the next expectation; lines count from one.
    const next = lines.findIndex((other, at) => at > index && EXPECTED.test(other))
    const last = next < 0 ? lines.length : next
    const found = errors.find((error) => error.line > index + 1 && error.line <= last && error.code === code)
    if (found) met.add(found)
    report(`${name}:${index + 2}: ${lines[index + 1].trim()} is refused`, found ? [] : [`${code} was expected`])
  }
  report(`${name}: the rest is right`, errors.filter((error) => !met.has(error)).map(told))
}

function parse(line) {
  const [, file, row, code, text] = line.match(/^(.+?)\((\d+),\d+\): error (TS\d+): (.*)$/) ?? []
  return file === undefined ? undefined : { file: join(here, file), line: Number(row), code, text }
}

function told({ file, line, code, text }) {
  return `${relative(consumers, file)}:${line}: ${code}: ${text}`
}

function report(what, problems) {
  if (problems.length === 0) passed += 1
  else failed += 1
  console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'}  ${what}`)
  for (const problem of problems) console.log(`      ${problem}`)
}
