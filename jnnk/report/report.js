// A click on a cell of the channel heat map shows the images that both channels answer to most.
const map = document.getElementById("overlap_explorer");
const slot = document.getElementById("channel_pair");
const { images, layers } = JSON.parse(document.getElementById("channel_pictures").textContent);

map.on("plotly_click", ({ points: [point] }) => {
  const layer = point.data.meta;  // its name is escaped for Plotly
  const title = document.createElement("p");
  title.textContent = `${layer}: channels ${point.y} and ${point.x}, overlap ${point.z.toFixed(3)}`;
  const sides = [point.y, point.x].map((channel) => {
    const side = document.createElement("div");
    const rows = layers[layer] ? layers[layer][channel] : [];
    side.append(`channel ${channel}${rows.length ? "" : ": no images kept"}`, document.createElement("br"));
    for (const row of rows) {
      const image = document.createElement("img");
      image.src = images[row];
      image.alt = `training image ${row}`;
      side.append(image);
    }
    return side;
  });
  slot.replaceChildren(title, ...sides);
});
