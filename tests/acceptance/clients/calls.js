// The official Node clients, as `calls.py` is for Python: one call, JSON in, [[label, score], ...] out.
const fs = require("fs");

const clients = {
  async clarifai_node({ url, key, model, image }) {
    const Clarifai = require("clarifai");
    const app = new Clarifai.App({ apiKey: key, apiEndpoint: url });
    const known = await app.models.list({ page: 1, perPage: 100 });
    if (!known.rawData.some(({ id }) => id === model)) throw new Error("the model is not on the list");
    const one = await app.models.get(model);
    if (one.id !== model) throw new Error("another model came");
    const base64 = fs.readFileSync(image).toString("base64");
    const answer = await app.models.predict(model, [{ base64 }, { base64 }]);
    if (answer.outputs.length !== 2) throw new Error("a batch of two is answered by two");
    return answer.outputs[1].data.concepts.map(({ name, value }) => [name, value]);
  },

  async custom_vision_node({ url, key, model, image }) {
    const { PredictionAPIClient } = require("@azure/cognitiveservices-customvision-prediction");
    const { ApiKeyCredentials } = require("@azure/ms-rest-js");
    const [project, name] = model.split("/");
    const client = new PredictionAPIClient(new ApiKeyCredentials({ inHeader: { "Prediction-key": key } }), url);
    const answer = await client.classifyImage(project, name, fs.readFileSync(image));
    return answer.predictions.map(({ tagName, probability }) => [tagName, probability]);
  },
};

const { client, ...asked } = JSON.parse(fs.readFileSync(0, "utf8"));
clients[client](asked).then(
  (rows) => console.log(JSON.stringify(rows)),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
