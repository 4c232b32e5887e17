// A matrix-js-sdk client driven by lines of JSON: commands on standard input, what it sees on standard output.
//
//   node client.mjs BASE USER_ID DEVICE_ID ACCESS_TOKEN
//   > {"do":"send","room":"!…","text":"…"}   {"do":"typing","room":"!…"}   {"do":"read","room":"!…","event":"$…"}   {"do":"stop"}
//   < {"ready":true}   {"message":{"id","room","sender","text","encrypted"}}   {"typing":{…}}   {"receipt":{…}}   {"done":n,"event":"$…"}
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// Node 20 lacks it, the SDK uses it.
Promise.withResolvers ??= function () {
    const out = {};
    out.promise = new Promise((resolve, reject) => Object.assign(out, { resolve, reject }));
    return out;
};
const modules = process.env.TESTS_NODE_MODULES;
const sdk = await import(pathToFileURL(modules + "/matrix-js-sdk/lib/index.js").href);
const { logger } = await import(pathToFileURL(modules + "/matrix-js-sdk/lib/logger.js").href);
logger.setLevel?.("error");
console.log = console.info = console.debug = (...args) => console.error(...args);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

const [baseUrl, userId, deviceId, accessToken] = process.argv.slice(2);
const client = sdk.createClient({ baseUrl, userId, deviceId, accessToken });
await client.initRustCrypto({ useIndexedDB: false });
client.getCrypto().globalBlacklistUnverifiedDevices = false;

const told = new Set();
function tell(event) {
    if (event.getType() !== "m.room.message" || event.isSending() || told.has(event.getId())) return;
    told.add(event.getId());
    say({ message: { id: event.getId(), room: event.getRoomId(), sender: event.getSender(),
                     text: event.getContent().body, encrypted: event.isEncrypted() } });
}
// An encrypted event is told when it can be read, in the order of the room: the timeline waits for it.
const line = [];
function flush() {
    while (line.length && !(line[0].isEncrypted() && line[0].getType() === "m.room.encrypted")) tell(line.shift());
}
client.on(sdk.ClientEvent.Event, (event) => {
    if (["m.room.message", "m.room.encrypted"].includes(event.getType()) && event.getRoomId()) line.push(event);
    if (event.getType() === "m.typing") say({ typing: { room: event.getRoomId(), users: event.getContent().user_ids } });
    if (event.getType() === "m.receipt") say({ receipt: { room: event.getRoomId(), content: event.getContent() } });
    flush();
});
client.on(sdk.MatrixEventEvent.Decrypted, flush);
client.on(sdk.ClientEvent.Sync, (state) => { if (state === "PREPARED") say({ ready: true }); });
// Enough for any burst between two polls: with the usual 10 a limited timeline would look like a loss.
const filter = await client.createFilter({ room: { timeline: { limit: 2000 } } });
await client.startClient({ filter, pollTimeout: 5000 });

let chain = Promise.resolve(), number = 0;
createInterface({ input: process.stdin }).on("line", (text) => {
    const command = JSON.parse(text), n = ++number;
    chain = chain.then(async () => {
        let answer = {};
        if (command.do === "send") answer = await client.sendTextMessage(command.room, command.text);
        if (command.do === "typing") await client.sendTyping(command.room, true, 20000);
        if (command.do === "read") {
            const event = client.getRoom(command.room).findEventById(command.event);
            await client.sendReadReceipt(event);
        }
        if (command.do === "devices") {
            const known = await client.getCrypto().getUserDeviceInfo(command.users);
            answer = { known: command.users.filter((user) => known.get(user)?.size) };
        }
        if (command.do === "stop") { client.stopClient(); process.exit(0); }
        say({ done: n, event: answer.event_id, known: answer.known });
    }).catch((error) => say({ failed: String(error) }));
});
