// Builds the sync layer's wasm into npm/worker, as small as it gets, and says how large that is.

import { execFileSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'

const here = join(dirname(fileURLToPath(import.meta.url)), '..')
const repository = join(here, '../..')
const target = 'wasm32-unknown-unknown'
const folder = join(process.env.CARGO_TARGET_DIR ?? join(repository, 'target'), 'worker')
const out = join(repository, 'npm/worker')

const built = compile()
const work = mkdtempSync(join(tmpdir(), 'sync-layer-'))
try {
  run('cargo', ['run', '--quiet', '--locked', '--target-dir', join(folder, 'glue'), '--', built, work], {
    cwd: join(here, 'glue'),
  })
  const wasm = join(work, 'sync-layer.wasm')
  run(process.execPath, [
    join(here, 'node_modules/binaryen/bin/wasm-opt'),
    '-Oz',
    ...features(),
    join(work, 'sync-layer_bg.wasm'),
    '-o',
    wasm,
  ])
  mkdirSync(out, { recursive: true })
  copyFileSync(wasm, join(out, 'sync-layer.wasm'))
  copyFileSync(join(work, 'sync-layer.js'), join(out, 'sync-layer.mjs'))
  const bytes = readFileSync(wasm)
  writeFileSync(join(out, 'sync-layer.d.mts'), readFileSync(join(work, 'sync-layer.d.ts')))
  const size = (count) => `${(count / 1024).toFixed(1)} KiB`
  console.log(`sync-layer.wasm: ${size(bytes.length)}, ${size(gzipSync(bytes, { level: 9 }).length)} gzipped`)
} finally {
  rmSync(work, { recursive: true, force: true })
}

/** Where rustup has the target, with plain cargo; else with Debian's compiler and the standard library's source. */
function compile() {
  const sysroot = execFileSync('rustc', ['--print', 'sysroot'], { encoding: 'utf8' }).trim()
  const cargo = [
    'build',
    '--package',
    'mcp-sessions-worker',
    '--target',
    target,
    '--profile',
    'worker',
    '--target-dir',
    folder,
  ]
  if (existsSync(join(sysroot, 'lib/rustlib', target, 'lib'))) {
    run('cargo', cargo, { cwd: repository, env: environment() })
  } else if (existsSync('/usr/bin/cargo') && existsSync('/usr/lib/rustlib/src/rust/library/std')) {
    run('/usr/bin/cargo', [...cargo, '-Zbuild-std=std,panic_abort'], {
      cwd: repository,
      env: environment({ RUSTC: '/usr/bin/rustc', RUSTC_BOOTSTRAP: '1' }),
    })
  } else {
    console.error(`no compiler for ${target} here: rustup target add ${target}`)
    process.exit(1)
  }
  return join(folder, target, 'worker/mcp_sessions_worker.wasm')
}

/** What a panic says of where it was must not tell of the machine that built it. */
function environment(more) {
  const flags = [
    [repository, 'mcp-sessions'],
    [process.env.CARGO_HOME ?? join(homedir(), '.cargo'), 'cargo'],
  ].map(([path, name]) => `--remap-path-prefix=${path.replace(/[\\/]+$/, '')}=${name}`)
  return { ...process.env, ...more, RUSTFLAGS: [process.env.RUSTFLAGS, ...flags].filter(Boolean).join(' ') }
}

/** What the compiler emits for this target anyway. */
function features() {
  return [
    'bulk-memory',
    'nontrapping-float-to-int',
    'sign-ext',
    'mutable-globals',
    'reference-types',
    'multivalue',
  ].map((name) => `--enable-${name}`)
}

function run(command, args, options = {}) {
  execFileSync(command, args, { stdio: 'inherit', ...options })
}
