/** `npm run bench`: setup, then the compiled benchmark in this process, so that Ctrl-C reaches it. */
import { join } from 'node:path'
import { setup } from './setup.mjs'
import { isMain, root, script } from './steps.mjs'

if (isMain(import.meta.url)) {
  await script('bench', async () => {
    setup()
    const { bench } = await import(join(root, 'dist', 'scripts', 'bench', 'main.js'))
    process.exitCode = (await bench(process.argv.slice(2))) || process.exitCode
  })
}
