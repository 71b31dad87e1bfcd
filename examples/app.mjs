// What a mobile app asks of the API, in JavaScript without packages (Node.js 18 or newer, or any browser):
//
//   BOOKCLUB_API=http://127.0.0.1:8000 BOOKCLUB_USER=ada BOOKCLUB_PASSWORD='four words of yours' node examples/app.mjs

const api = process.env.BOOKCLUB_API ?? "http://127.0.0.1:8000";
const user = { username: process.env.BOOKCLUB_USER, password: process.env.BOOKCLUB_PASSWORD };
const kept = new Map(); // address -> its last answer, which holds for as long as the API says 304
let session; // { access_token, refresh_token, ... }

const problem = (kind) => `tag:bookclub,2026:${kind}`;
const asJson = (body) => ({ method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const known = options.method ? undefined : kept.get(path);
  if (session) headers.authorization = `Bearer ${session.access_token}`;
  if (known) headers["if-none-match"] = known.etag;
  const answer = await fetch(api + path, { ...options, headers });
  if (answer.status === 304) return known.body;
  if (answer.status === 204) return null;
  const body = await answer.json();
  if (answer.ok) {
    if (answer.headers.has("etag")) kept.set(path, { etag: answer.headers.get("etag"), body });
    return body;
  }
  if (body.type === problem("expired-token")) {
    session = await refreshed(session.refresh_token);
    return ask(path, options);
  }
  const tries = options.tries ?? 0;
  if ((answer.status === 429 || answer.status === 503) && tries < 5) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get("retry-after"))));
    return ask(path, { ...options, tries: tries + 1 });
  }
  throw new Error(`${body.status} ${body.type}: ${body.detail}`);
}

async function refreshed(refresh_token) {
  session = undefined; // should it be refused, the reader has to log in
  return ask("/token/refresh", asJson({ refresh_token }));
}

session = await ask("/login", { method: "POST", body: new URLSearchParams(user) });
const shelf = await ask("/books?sort=-rating&in_stock=true&limit=5");
for (const book of shelf.items) console.log(`${"*".repeat(book.rating ?? 0)} ${book.title}, ${book.price} ${book.currency}`);
const next = shelf.next && (await ask(`/books?sort=-rating&in_stock=true&limit=5&cursor=${encodeURIComponent(shelf.next)}`));
console.log(`${shelf.total} books, ${next?.items.length ?? 0} on the next page`);

const [first] = shelf.items;
const list = await ask(`/books/${first.id}/recommendations?limit=3`);
for (const { book, why } of list.items) console.log(`Like it: ${book.title} (${why.map(({ value }) => value).join(", ")})`);
const events = list.items.map(({ book }, place) => ({
  ...{ event_id: crypto.randomUUID(), kind: "shown", recommendation_id: list.id },
  ...{ book_id: book.id, for_book_id: first.id, position: place + 1 },
}));
if (events.length) console.log(`${(await ask("/feedback", asJson({ events }))).stored} events told`);
await ask("/logout", { method: "POST" });
