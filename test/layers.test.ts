/** The order of the layers: imports point down, as ARCHITECTURE.md says. */
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import t from 'tap'
import { packageRoot } from './support/root.js'

/** From the top. */
const LAYERS = [
  'cli',
  'daemon',
  'fuse-native',
  'fuse',
  'fs',
  'staging',
  'unixfs',
  'sources',
  'p2p',
  'bitswap',
  'store',
  'core',
]
const src = join(packageRoot, 'src')

interface Import {
  /** Path below src. */
  from: string
  /** Path below src, or the specifier of a package. */
  to: string
  typeOnly: boolean
}

async function sources(): Promise<string[]> {
  const entries = await readdir(src, { recursive: true })
  return entries.filter(name => name.endsWith('.ts')).sort()
}

/** `import`, `export … from`, `import()`, and workers started by URL. */
const SPECIFIERS = [
  /^\s*(?:import|export)\s+(type\s)?[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/gm,
  /^\s*import\s*()['"]([^'"]+)['"]/gm,
  /\bimport\s*\(\s*()['"`]([^'"`]+)['"`]\s*\)/g,
  /\bnew URL\(\s*()['"`](\.[^'"`]+)['"`]\s*,\s*import\.meta\.url/g,
]

async function importsOf(file: string): Promise<Import[]> {
  const text = await readFile(join(src, file), 'utf8')
  return SPECIFIERS.flatMap(pattern => [...text.matchAll(pattern)]).map(([, type, specifier]) => {
    const local = specifier!.startsWith('.')
    const to = local ? relative(src, join(src, dirname(file), specifier!)) : specifier!
    return { from: file, to, typeOnly: type !== undefined && type !== '' }
  })
}

const files = await sources()
const imports = (await Promise.all(files.map(importsOf))).flat()
const local = imports.filter(
  ({ to }) => !to.startsWith('node:') && /\.[cm]?js$/.test(to) && LAYERS.includes(layerOf(to)),
)
const show = ({ from, to }: Import) => `${from} imports ${to}`

function layerOf(path: string): string {
  return path.split(sep)[0]!
}

t.test('every source file belongs to a layer', async t => {
  t.ok(files.length > 50, `${files.length} files`)
  t.same(
    files.filter(file => !LAYERS.includes(layerOf(file))),
    [],
  )
})

t.test('the parser finds the imports', async t => {
  t.ok(local.length > files.length, `${local.length} local imports in ${files.length} files`)
  const outside = imports.filter(({ to }) => to.startsWith('..'))
  t.same(outside.map(show), [], 'no import leaves src')
})

t.test('imports point down', async t => {
  const up = local.filter(({ from, to }) => LAYERS.indexOf(layerOf(to)) < LAYERS.indexOf(layerOf(from)))
  t.same(up.map(show), [])
})

const TRANSPORTS = ['fuse', 'fuse-native']

t.test('the file system knows no transport', async t => {
  const known = local.filter(({ from, to }) => layerOf(from) === 'fs' && TRANSPORTS.includes(layerOf(to)))
  t.same(known.map(show), [])
})

t.test('the transports know the interface of file systems, and no file system', async t => {
  const known = ['fs/file-system.js', 'fs/session.js', 'fs/errno.js']
  const used = local.filter(({ from, to }) => TRANSPORTS.includes(layerOf(from)) && layerOf(to) === 'fs')
  t.same(used.filter(({ to }) => !known.includes(to)).map(show), [])
})

t.test('UnixFS does no I/O of its own: it is given blocks', async t => {
  const io = /^(node:)?(fs|fs\/promises|net|http|https|worker_threads|child_process)$|^undici$/
  t.same(imports.filter(({ from, to }) => layerOf(from) === 'unixfs' && io.test(to)).map(show), [])
  t.same(
    local
      .filter(({ from, to }) => layerOf(from) === 'unixfs' && ['sources', 'store'].includes(layerOf(to)))
      .map(show),
    [],
  )
})

t.test('only sources and the control socket speak HTTP', async t => {
  const http = /^(node:)?(http|https|http2)$|^undici$|^kubo-rpc-client$/
  const allowed = ['sources', 'daemon', 'cli']
  t.same(
    imports
      .filter(({ from, to, typeOnly }) => http.test(to) && !typeOnly && !allowed.includes(layerOf(from)))
      .map(show),
    [],
  )
})

t.test('the addon is loaded in one place, and that of fuse-native in another', async t => {
  const loading = []
  for (const file of files) {
    const text = await readFile(join(src, file), 'utf8')
    if (/createRequire|process\.dlopen|\.node['"`]/.test(text)) loading.push(file)
  }
  t.same(loading, [join('core', 'native.ts'), join('fuse-native', 'package.ts')])
})
