// The smoke test under other runtimes, each installed from npm into a temporary folder.
//
//   node test/runtimes/run.mjs [node-22 bun …]
//
// A Node version that fails, or can't be had, fails the run. Bun and Deno are reported: they load the
// addon through their own implementation of Node-API.
import { spawn } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const npmFolder = join(here, '..', '..')
const DEADLINE_MS = 120_000

const RUNTIMES = [
  ...[20, 22, 24, 26].map((major) => ({
    name: `node-${major}`,
    required: true,
    install: `node@${major}`,
    command: (folder) => [join(folder, 'node_modules/node/bin/node')],
  })),
  { name: 'bun', required: false, install: 'bun', command: (folder) => [join(folder, 'node_modules/.bin/bun')] },
  {
    name: 'deno',
    required: false,
    install: 'deno',
    // It finds packages as Node does, in the folder that npm filled.
    command: (folder) => [
      join(folder, 'node_modules/.bin/deno'),
      'run',
      '--allow-all',
      '--node-modules-dir=manual',
      '--no-lock',
    ],
  },
]

const wanted = process.argv.slice(2)
const temporary = await mkdtemp(join(tmpdir(), 'mcp-sessions-runtimes-'))
let passed = 0
let failed = 0
try {
  const app = await installPackage()
  for (const runtime of RUNTIMES) {
    if (wanted.length > 0 && !wanted.includes(runtime.name)) continue
    await report(runtime, app)
  }
} finally {
  await rm(temporary, { recursive: true, force: true })
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 || passed === 0 ? 1 : 0

/** The package as it is published, in a folder of its own. */
async function installPackage() {
  await must('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', temporary], npmFolder)
  const tarball = (await readdir(temporary)).find((name) => name.endsWith('.tgz'))
  const app = join(temporary, 'app')
  await mkdir(app)
  await writeFile(join(app, 'package.json'), '{ "name": "smoke", "private": true, "type": "module" }\n')
  await must('npm', ['install', '--offline', '--no-audit', '--no-fund', '--silent', join(temporary, tarball)], app)
  await copyFile(join(here, 'smoke.mjs'), join(app, 'smoke.mjs'))
  return app
}

async function report(runtime, app) {
  const { name, required } = runtime
  const began = Date.now()
  const { version, problem } = await smoke(runtime, app)
  const ms = Date.now() - began
  if (problem === undefined) {
    passed += 1
    console.log(`ok    ${name} ${version} (${ms} ms)`)
    return
  }
  if (required) failed += 1
  console.log(`${required ? 'FAIL ' : 'does not work:'} ${name} ${version ?? ''}\n${problem.replace(/^/gm, '      ')}`)
}

async function smoke(runtime, app) {
  const folder = join(temporary, runtime.name)
  await mkdir(folder)
  await writeFile(join(folder, 'package.json'), '{ "name": "runtime", "private": true }\n')
  const installed = await run('npm', ['install', '--no-audit', '--no-fund', '--silent', runtime.install], folder)
  if (installed.status !== 0) return { problem: `it could not be installed: ${installed.output}` }
  const [command, ...flags] = runtime.command(folder)
  const { output } = await run(command, ['--version'], folder)
  const version = output.match(/\d+\.\d+\.\d+/)?.[0]
  const major = runtime.install.split('@')[1]
  if (version === undefined || (major !== undefined && version.split('.')[0] !== major)) {
    return { version, problem: `it is not the version that was asked for: ${output}` }
  }
  const { status, output: said } = await run(command, [...flags, 'smoke.mjs'], app)
  // Exit 0 without the last line would be a test that stopped half-way.
  if (status === 0 && said.includes('smoke: ok')) return { version }
  return { version, problem: `exit ${status}: ${said.trim()}` }
}

async function must(command, args, cwd) {
  const { status, output } = await run(command, args, cwd)
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed: ${output}`)
}

function run(command, args, cwd) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: DEADLINE_MS,
      killSignal: 'SIGKILL',
    })
    let output = ''
    child.stdout.on('data', (data) => (output += data))
    child.stderr.on('data', (data) => (output += data))
    child.on('error', (error) => resolve({ status: 127, output: error.message }))
    child.on('close', (code, signal) => resolve({ status: code ?? signal, output }))
  })
}
