// A document of /data/<path> -> the elements of the page, in the structure of the shop's other mode.
"use strict";

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const link = (href, ...children) => make("a", { href }, ...children);

function pod(book) {
  return make("article", { class: "product_pod" },
    make("div", { class: "image_container" },
      link(book.href, make("img", { src: book.image, alt: book.title, class: "thumbnail" }))),
    make("p", { class: `star-rating ${book.rating}` }),
    make("h3", {}, make("a", { href: book.href, title: book.title }, book.label)),
    make("div", { class: "product_price" }, make("p", { class: "price_color" }, book.price)));
}

function pods(books, kind) {
  return make(kind, { class: "row" }, ...books.map((book) => make("li", { class: "col-xs-6" }, pod(book))));
}

function turn(page) {
  if (page.pages === 1) return null;
  return make("ul", { class: "pager" },
    page.previous && make("li", { class: "previous" }, link(page.previous, "previous")),
    make("li", { class: "current" }, `Page ${page.page} of ${page.pages}`),
    page.next && make("li", { class: "next" }, link(page.next, "next")));
}

function listing(page) {
  const sidebar = make("div", { class: "side_categories" },
    make("ul", {}, ...page.categories.map(([href, name]) => make("li", {}, link(href, name)))));
  const count = make("form", { class: "form-horizontal" }, make("strong", {}, String(page.total)), " results");
  return make("div", { class: "page_inner" }, sidebar, make("h1", {}, page.heading), count,
    pods(page.books, "ol"), turn(page));
}

function book(page) {
  const rows = page.facts.map(([name, value]) => make("tr", {}, make("th", {}, name), make("td", {}, value)));
  const about = page.description
    ? [make("div", { id: "product_description" }, make("h2", {}, "Product Description")), make("p", {}, page.description)]
    : [];
  const viewed = page.viewed.length ? [make("h2", {}, "Products you recently viewed"), pods(page.viewed, "ul")] : [];
  return make("div", { class: "page_inner" }, link(...page.category),
    make("article", { class: "product_page" },
      make("div", { id: "product_gallery" }, make("img", { src: page.image, alt: page.title })),
      make("div", { class: "product_main" },
        make("h1", {}, page.title),
        make("p", { class: "price_color" }, page.price),
        make("p", { class: "instock availability" }, page.stock),
        make("p", { class: `star-rating ${page.rating}` })),
      ...about, make("table", {}, ...rows), ...viewed));
}

async function show() {
  const path = location.pathname;
  const answer = await fetch(`/data${path}`);
  if (path !== location.pathname) return;
  const app = document.getElementById("app");
  if (!answer.ok) return app.replaceChildren(make("h1", {}, `Sorry: ${answer.status}`));
  const page = await answer.json();
  app.replaceChildren(page.view === "book" ? book(page) : listing(page));
  document.title = page.title || page.heading;
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("a[href]");
  if (!target || target.origin !== location.origin) return;
  event.preventDefault();
  history.pushState(null, "", target.href);
  show();
});
window.addEventListener("popstate", show);
show();
