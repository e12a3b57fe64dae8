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

  async huggingface_node({ url, key, model, image }) {
    const { InferenceClient } = require("@huggingface/inference");
    const data = new Blob([fs.readFileSync(image)], { type: "image/png" });
    const client = new InferenceClient(key).endpoint(`${url}/models/${model}`);
    const rows = await client.imageClassification({ data });
    return rows.map(({ label, score }) => [label, score]);
  },

  async rekognition_node({ url, key, image }) {
    const aws = require("@aws-sdk/client-rekognition");
    const credentials = { accessKeyId: key, secretAccessKey: "word" };
    const client = new aws.RekognitionClient({ endpoint: url, region: "us-east-1", credentials, maxAttempts: 1 });
    const Image = { Bytes: fs.readFileSync(image) };
    const bad = new aws.DetectModerationLabelsCommand({ Image: { Bytes: Buffer.from("no image") } });
    const error = await client.send(bad).then(() => null, (error) => error);
    if (!(error instanceof aws.InvalidImageFormatException)) throw error ?? new Error("a bad image was answered");
    const answer = await client.send(new aws.DetectModerationLabelsCommand({ Image, MinConfidence: 0 }));
    return answer.ModerationLabels.map(({ Name, Confidence }) => [Name, Confidence]);
  },

  async openai_node({ url, key, model, image }) {
    const { OpenAI, AuthenticationError } = require("openai");
    const data = `data:image/png;base64,${fs.readFileSync(image).toString("base64")}`;
    const ask = (apiKey) =>
      new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 }).moderations.create({
        model,
        input: [{ type: "image_url", image_url: { url: data } }],
      });
    const error = await ask("stranger").then(() => null, (error) => error);
    if (!(error instanceof AuthenticationError)) throw error ?? new Error("a stranger's key was taken");
    return Object.entries((await ask(key)).results[0].category_scores);
  },

  async content_safety_node({ url, key, image }) {
    const { default: connect, isUnexpected } = require("@azure-rest/ai-content-safety");
    const { AzureKeyCredential } = require("@azure/core-auth");
    const client = connect(url, new AzureKeyCredential(key), { allowInsecureConnection: true });
    const content = fs.readFileSync(image).toString("base64");
    const answer = await client.path("/image:analyze").post({ body: { image: { content } } });
    if (isUnexpected(answer)) throw new Error(JSON.stringify(answer.body));
    return answer.body.categoriesAnalysis.map(({ category, severity }) => [category, severity]);
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
