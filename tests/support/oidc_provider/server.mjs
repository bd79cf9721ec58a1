// A real OpenID provider (npm oidc-provider, certified) for the integration tests: opaque access tokens,
// introspection and revocation on one loopback port.
//
//   node server.mjs MODULES PORT [STATE]
//
// MODULES is the folder that holds node_modules; STATE a file to which everything is saved on SIGTERM and from which
// it is loaded at start, so that tokens live through a restart. Prints one line of JSON when it is ready.
//
// Requests may say what the tests need and the standard has no parameter for:
//   POST /token  X-Test-Expires: seconds           life of the token
//                X-Test-Claims: {"sub": "alex"}    further members of the introspection answer
//   GET /__counts                                  how many questions came, by endpoint
//   POST /__logout?uri=&sub=&sid=                  log a user out of the client `app`, as the end of a session does:
//                                                  a logout token to `uri`; answers with the status it got there

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, port, stateFile] = process.argv.slice(2);
const from = createRequire(join(resolve(modules), 'package.json'));
const { Provider } = await import(pathToFileURL(from.resolve('oidc-provider')));

const saved = stateFile && existsSync(stateFile) ? JSON.parse(readFileSync(stateFile, 'utf8')) : {};
const entities = new Map(saved.entities ?? []);
const counts = { introspection: 0, discovery: 0, token: 0, revocation: 0, ...saved.counts };

// What oidc-provider's own in-memory adapter does for the models used here, in a map that can be saved.
class Adapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload, expiresIn) {
    entities.set(`${this.model}:${id}`, { payload, until: expiresIn ? Date.now() + expiresIn * 1000 : null });
  }

  async find(id) {
    const entity = entities.get(`${this.model}:${id}`);
    return entity && (entity.until === null || entity.until > Date.now()) ? entity.payload : undefined;
  }

  async destroy(id) {
    entities.delete(`${this.model}:${id}`);
  }

  async consume(id) {
    (await this.find(id)).consumed = Math.floor(Date.now() / 1000);
  }

  async findByUid() {}

  async findByUserCode() {}

  async revokeByGrantId() {}
}

const resourceServer = (client_id, client_secret, token_endpoint_auth_method) => ({
  client_id,
  client_secret,
  token_endpoint_auth_method,
  grant_types: [],
  response_types: [],
  redirect_uris: [],
});

const scopes = 'read write profile email';
const provider = new Provider(`http://127.0.0.1:${port}`, {
  adapter: Adapter,
  cookies: { keys: ['only-for-tests'] },
  scopes: scopes.split(' '),
  clients: [
    resourceServer('fastgate', 'gateway-secret-for-tests', 'client_secret_basic'),
    resourceServer('fastgate-post', 'gateway-secret-for-tests', 'client_secret_post'),
    // RFC 6749 section 2.3.1: both parts are form-encoded before base64; an unencoded secret is refused.
    resourceServer('fastgate:odd', 'odd:+ %&=/secret', 'client_secret_basic'),
    resourceServer('fastgate:odd-post', 'odd:+ %&=/secret', 'client_secret_post'),
    {
      ...resourceServer('app', 'app-secret-for-tests', 'client_secret_basic'),
      grant_types: ['client_credentials'],
      scope: scopes,
    },
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    backchannelLogout: { enabled: true },
    revocation: { enabled: true, allowedPolicy: (ctx, client, token) => client.clientId === token.clientId },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (ctx, resource) => ({
        scope: scopes,
        audience: resource.replace(/^urn:fastgate:/, ''),
        accessTokenFormat: 'opaque',
      }),
    },
  },
  ttl: {
    ClientCredentials: (ctx) => Number(ctx.get('x-test-expires') || 600),
  },
  // The gateway is on loopback, where oidc-provider by itself lets no logout go.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  extraTokenClaims: (ctx) => JSON.parse(ctx.get('x-test-claims') || '{}'),
});

const counted = {
  'POST /token/introspection': 'introspection',
  'POST /token/revocation': 'revocation',
  'POST /token': 'token',
  'GET /.well-known/openid-configuration': 'discovery',
};
async function logout(query) {
  const client = await provider.Client.find('app');
  client.backchannelLogoutUri = query.get('uri');
  client.backchannelLogoutSessionRequired = query.has('sid');
  try {
    await client.backchannelLogout(query.get('sub'), query.get('sid'));
    return 200;
  } catch (error) {
    return error.response?.status ?? String(error);
  }
}

const answer = provider.callback();
const server = createServer((request, response) => {
  const path = request.url.split('?', 1)[0];
  if (path === '/__counts') {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(counts));
    return;
  }
  if (path === '/__logout') {
    logout(new URL(request.url, provider.issuer).searchParams).then((status) => {
      response.setHeader('content-type', 'application/json').end(JSON.stringify({ status }));
    });
    return;
  }
  const name = counted[`${request.method} ${path}`];
  if (name) counts[name] += 1;
  answer(request, response);
});

process.on('SIGTERM', () => {
  if (stateFile) writeFileSync(stateFile, JSON.stringify({ entities: [...entities], counts }));
  process.exit(0);
});

server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ ready: true, issuer: provider.issuer }));
});
