// Node-RED without an editor; the driver and the decoder are for the function node.
module.exports = {
  httpAdminRoot: false,
  httpNodeRoot: false,
  uiHost: '127.0.0.1',
  uiPort: 0,
  flowFilePretty: true,
  credentialSecret: false,
  logging: { console: { level: 'warn' } },
  functionGlobalContext: {
    pg: require('pg'),
    cbor: require('cbor-x'),
    port: Number(process.env.BENCH_DATABASE_PORT),
  },
};
