"""Shop's address -> one whole crawl by Scrapy -> one line of JSON on stdout. Started by crawl.py, once per crawl.

Timed: from the start of the reactor to its end. It fetches the same pages and fields as ours: robots.txt, home page,
listings, book pages. Rows are counted, hashed and dropped, as in ours; no page is kept. Features that cost Scrapy time
and are not needed are off: log, cookies, telnet. All other settings are Scrapy's defaults.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import scrapy
from _figures import Digest, Stopwatch
from scrapy.crawler import CrawlerProcess
from scrapy.http import TextResponse

CATEGORY = re.compile(r"/category/books/([a-z0-9-]+)_[0-9]+/")


class Books(scrapy.Spider):
    name = "books_toscrape"

    def __init__(self, address: str, rows: Digest) -> None:
        super().__init__()
        self.address, self.rows = address, rows

    async def start(self) -> AsyncIterator[scrapy.Request]:
        yield scrapy.Request(f"{self.address}/", self.parse)

    def parse(self, response: TextResponse) -> Iterator[scrapy.Request]:
        for link in response.css(".side_categories a[href]"):
            url = response.urljoin(link.attrib["href"])
            if match := CATEGORY.search(url):
                name = " ".join((link.css("::text").get() or "").split())
                yield scrapy.Request(url, self.listing, cb_kwargs={"category": match[1], "category_name": name})

    def listing(self, response: TextResponse, **category: str) -> Iterator[scrapy.Request]:
        for href in response.css("h3 > a::attr(href)").getall():
            yield scrapy.Request(response.urljoin(href), self.book, cb_kwargs=category)
        if following := response.css("li.next > a::attr(href)").get():
            yield scrapy.Request(response.urljoin(following), self.listing, cb_kwargs=category)

    def book(self, response: TextResponse, category: str, category_name: str) -> None:
        main = response.css("div.product_main")[0]
        table = {row.css("th::text").get(): row.css("td::text").get() for row in response.css("table tr")}
        words = main.css(".star-rating").attrib["class"].split()
        image = response.css("#product_gallery img::attr(src)").get()
        self.rows.add({
            "source": self.name,
            "url": response.url,
            "category": category,
            "category_name": category_name,
            "upc": table.get("UPC"),
            "title": main.css("h1::text").get(),
            "price": main.css(".price_color::text").get(),
            "rating": next(word for word in words if word != "star-rating"),
            "availability": "".join(main.css(".availability ::text").getall()),
            "description": response.css("#product_description ~ p::text").get(),
            "num_reviews": table.get("Number of reviews"),
            "image_url": response.urljoin(image) if image else None,
            "seen_at": datetime.now(UTC).isoformat(),
        })  # fmt: skip


def main(address: str, concurrency: int) -> None:
    rows = Digest()
    process = CrawlerProcess(
        {
            "CONCURRENT_REQUESTS": concurrency,
            "CONCURRENT_REQUESTS_PER_DOMAIN": concurrency,
            "DOWNLOAD_DELAY": 0,
            "ROBOTSTXT_OBEY": True,
            "COOKIES_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "LOG_ENABLED": False,
            "LOGSTATS_INTERVAL": 0,
        }
    )
    with Stopwatch() as watch:
        process.crawl(Books, address=address, rows=rows)
        process.start()
    watch.report(rows)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
