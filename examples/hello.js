// Promises, Intl and Unicode as in any node. 🟢
const cities = { Reykjavík: "Atlantic/Reykjavik", 東京: "Asia/Tokyo", Nairobi: "Africa/Nairobi" };
const noon = new Date(Date.UTC(2024, 0, 1, 12));

async function local(city, timeZone) {
  const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "short", timeZone }).format(noon);
  return `🕛 noon in Greenwich is ${time} in ${city}`;
}

console.log(`🟢 Hello from JavaScript, node ${process.version}!`);
Promise.all(Object.entries(cities).map(([city, zone]) => local(city, zone))).then((lines) => console.log(lines.join("\n")));
