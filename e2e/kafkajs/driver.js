// The driver of kafkajs. Its protocol is that of the Go package e2e/drivers.
'use strict'

const readline = require('node:readline')
const { Kafka, logLevel } = require('kafkajs')

const [verb, ...args] = process.argv.slice(2)
const o = Object.fromEntries(args.map(arg => [arg.slice(0, arg.indexOf('=')), arg.slice(arg.indexOf('=') + 1)]))

const origin = BigInt(Date.now()) * 1000n - process.hrtime.bigint() / 1000n
const print = (...words) => process.stdout.write(`${origin + process.hrtime.bigint() / 1000n} ${words.join(' ')}\n`)

const kafka = new Kafka({
  clientId: 'driver',
  brokers: [o.broker],
  logLevel: logLevel.WARN,
  logCreator: () => ({ label, log }) => process.stderr.write(`${label} ${log.message} ${log.error || ''}\n`),
  retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 1000 },
})

let ended = false
const inputEnds = new Promise(resolve => {
  if (verb === 'transactor') return
  process.stdin.on('end', resolve)
  process.stdin.on('close', resolve)
}).then(() => { ended = true })

// Resolves when the first word comes, if it is waited for; what follows is thrown away.
async function begin() {
  if (verb === 'transactor') return
  if (!o.hold) {
    process.stdin.resume()
    return
  }
  print('ready')
  await new Promise(resolve => process.stdin.once('data', resolve))
}

async function produce() {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, allowAutoTopicCreation: false })
  await producer.connect()
  const rate = Number(o.rate || 500)
  const partitions = Number(o.partitions || 1)
  const began = Date.now()
  let n = 0
  while (!ended) {
    const messages = []
    for (const due = (Date.now() - began) / 1000 * rate; n < due && messages.length < 200; n++) {
      messages.push({ partition: n % partitions, value: o.prefix + n })
    }
    if (messages.length > 0) await producer.send({ topic: o.topic, acks: -1, messages })
    else await new Promise(resolve => setTimeout(resolve, 5))
  }
  await producer.disconnect()
  print('done', n)
}

// A member has its partitions from one join of the group to the next: the library does not say when it stops to process them.
async function member() {
  const consumer = kafka.consumer({
    groupId: o.group,
    sessionTimeout: Number(o.session || 10000),
    rebalanceTimeout: 10000,
    heartbeatInterval: 500,
    maxWaitTimeInMs: 100,
    allowAutoTopicCreation: false,
    readUncommitted: o.isolation !== 'committed',
  })
  let owned = []
  const own = partitions => {
    if (owned.length > 0) print('revoked', owned.join(','))
    owned = partitions
    if (owned.length > 0) print('assigned', owned.join(','))
  }
  consumer.on(consumer.events.GROUP_JOIN, e => own([...(e.payload.memberAssignment[o.topic] || [])]))
  consumer.on(consumer.events.CRASH, e => print('note', 'crash:', String(e.payload.error).replace(/\s+/g, ' ')))
  await consumer.connect()
  await consumer.subscribe({ topics: [o.topic], fromBeginning: true })
  await consumer.run({
    autoCommitInterval: 100,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, commitOffsetsIfNecessary, heartbeat, isRunning, isStale }) => {
      for (const message of batch.messages) {
        if (!isRunning() || isStale()) break
        print('record', batch.partition, message.offset, message.value)
        resolveOffset(message.offset)
      }
      await commitOffsetsIfNecessary()
      await heartbeat()
    },
  })
  await inputEnds
  await consumer.disconnect()
  own([])
}

async function transactor() {
  const producer = kafka.producer({
    transactionalId: o.id, idempotent: true, maxInFlightRequests: 1, transactionTimeout: Number(o.timeout || 60000), allowAutoTopicCreation: false,
    retry: { initialRetryTime: 100, retries: 20 },
  })
  await producer.connect()
  let transaction
  const commands = {
    begin: async () => { transaction = await producer.transaction() },
    send: (partition, value) => transaction.send({ topic: o.topic, acks: -1, messages: [{ partition: Number(partition), value }] }),
    offsets: (group, partition, offset) =>
      transaction.sendOffsets({ consumerGroupId: group, topics: [{ topic: o.topic, partitions: [{ partition: Number(partition), offset }] }] }),
    commit: () => transaction.commit(),
    abort: () => transaction.abort(),
  }
  print('ok')
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, ...words] = line.split(' ')
    try {
      await commands[command](...words)
      print('ok')
    } catch (error) {
      print('failed', String(error).replace(/\s+/g, ' '))
    }
  }
  await producer.disconnect()
}

const verbs = { produce, member, transactor }
begin().then(verbs[verb]).then(() => process.exit(0), error => {
  process.stderr.write(`${error.stack}\n`)
  process.exit(1)
})
