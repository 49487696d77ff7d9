/** Everything about names, put together: resolving, keys, publishing, and the directories that names follow. */
import { txtResolver } from '../sources/dns.js'
import { nameNetwork } from '../sources/name-network.js'
import { NameResolver } from '../sources/names.js'
import type { NetworkClient } from '../sources/worker-client.js'
import { DirectoryNames } from '../staging/directory-names.js'
import { NameKeys } from '../staging/name-keys.js'
import { NamePublisher } from '../staging/name-publisher.js'
import { NameRecords } from '../staging/name-records.js'
import type { Staging } from '../staging/staging.js'
import type { Store } from '../store/store.js'
import type { Config } from './config.js'

export interface Naming {
  names: NameResolver
  keys: NameKeys
  publisher: NamePublisher
  directoryNames: DirectoryNames
  start(): void
  stop(): Promise<void>
}

/** Starts nothing yet. @throws CidfsError `BAD_CONFIG`. */
export function createNaming(config: Config, store: Store, client: NetworkClient, staging: Staging): Naming {
  const network = nameNetwork(client)
  const resolver = new NameResolver(store, {
    network,
    dns: config.dns === undefined ? undefined : txtResolver(config.dns),
    offline: config.offline,
    deadlineMs: config.readDeadlineMs,
  })
  const shared = { keys: new NameKeys(config.stateDir), records: new NameRecords(store) }
  const publisher = new NamePublisher({ ...shared, store, resolver, network })
  const directoryNames = new DirectoryNames({ ...shared, staging, publisher })
  return {
    names: resolver,
    keys: shared.keys,
    publisher,
    directoryNames,
    start: () => {
      resolver.start()
      publisher.start()
      directoryNames.start()
    },
    stop: async () => {
      directoryNames.stop()
      await publisher.stop()
      await resolver.stop()
    },
  }
}
