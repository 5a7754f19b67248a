// Builds the package: the addon of this machine into its platform folder, the TypeScript into dist.
//
//   node scripts/build.mjs            both
//   node scripts/build.mjs addon      the addon only
//   node scripts/build.mjs dist       dist only

import { execFileSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = join(dirname(fileURLToPath(import.meta.url)), '..')
const repository = join(here, '..')
const require = createRequire(import.meta.url)
const what = process.argv.slice(2)

if (what.length === 0 || what.includes('dist')) buildDist()
if (what.length === 0 || what.includes('addon')) buildAddon()

function run(command, args, cwd, env) {
  execFileSync(command, args, {
    cwd,
    stdio: 'inherit',
    shell: process.platform === 'win32',
    env: { ...process.env, ...env },
  })
}

/** CommonJS by the compiler, and ES modules around it: there is one copy of everything that has state. */
function buildDist() {
  const dist = join(here, 'dist')
  rmSync(dist, { recursive: true, force: true })
  run(process.execPath, [join(here, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.json'], here)
  for (const entry of ['index', 'sdk', 'tmcp']) {
    const names = exportsOf(join(dist, `${entry}.js`))
    const lines = [`import all from './${entry}.js'`, ...names.map((name) => `export const ${name} = all.${name}`)]
    writeFileSync(join(dist, `${entry}.mjs`), `${lines.join('\n')}\n`)
    writeFileSync(join(dist, `${entry}.d.mts`), `export * from './${entry}.js'\n`)
  }
  // The tarball has a page and a licence, too: those of the repository.
  for (const name of ['README.md', 'LICENSE']) {
    if (existsSync(join(repository, name))) copyFileSync(join(repository, name), join(here, name))
  }
}

/** What a compiled module exports, without running it: it may need the addon. */
function exportsOf(file) {
  const lexer = /^(?:exports\.(\w+) = |Object\.defineProperty\(exports, "(\w+)")/gm
  const names = new Set()
  for (const [, plain, defined] of readText(file).matchAll(lexer)) names.add(plain ?? defined)
  names.delete('__esModule')
  return [...names].sort()
}

function readText(file) {
  return require('node:fs').readFileSync(file, 'utf8')
}

function buildAddon() {
  run('cargo', ['build', '--release', '--package', 'mcp-sessions-node'], repository, { RUSTFLAGS: withoutPaths() })
  const target = process.env.CARGO_TARGET_DIR ?? join(repository, 'target')
  const prefix = process.platform === 'win32' ? '' : 'lib'
  const suffix = { win32: 'dll', darwin: 'dylib' }[process.platform] ?? 'so'
  const built = join(target, 'release', `${prefix}mcp_sessions_node.${suffix}`)
  const platform = platformName()
  const place = join(here, 'platforms', platform, `mcp-sessions.${platform}.node`)
  mkdirSync(dirname(place), { recursive: true })
  if (existsSync(place) && statSync(place).mtimeMs >= statSync(built).mtimeMs) return
  // Replaced in one step: a process that has the old one open keeps it.
  copyFileSync(built, `${place}.new`)
  strip(`${place}.new`)
  renameSync(`${place}.new`, place)
}

/** What a panic says of where it was must not tell of the machine that built the addon. */
function withoutPaths() {
  const home = process.env.CARGO_HOME ?? join(homedir(), '.cargo')
  const flags = [
    [repository, 'mcp-sessions'],
    [home, 'cargo'],
  ].map(([path, name]) => `--remap-path-prefix=${path.replace(/[\\/]+$/, '')}=${name}`)
  return [process.env.RUSTFLAGS, ...flags].filter(Boolean).join(' ')
}

/** Debug information is most of the size. */
function strip(file) {
  if (process.platform === 'win32') return
  try {
    execFileSync('strip', process.platform === 'darwin' ? ['-x', file] : ['--strip-debug', file], { stdio: 'ignore' })
  } catch {
    // It works as well without.
  }
}

/** As src/native.ts says it; the addon may not be there yet to ask it. */
function platformName() {
  const name = `${process.platform}-${process.arch}`
  if (process.platform === 'win32') return `${name}-msvc`
  if (process.platform !== 'linux') return name
  process.report.excludeNetwork = true
  return `${name}-${process.report.getReport().header.glibcVersionRuntime ? 'gnu' : 'musl'}`
}
