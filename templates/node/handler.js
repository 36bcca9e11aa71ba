'use strict';

// Answers one request.
// event: body, headers, method, path, query. The answer: statusCode, headers and body; or the body alone.
module.exports = async (event, context) => {
  // Standard output and error go to the function's log: spore logs.
  console.log(event.method, event.path);

  let text = `Hello, ${event.query.name ?? 'world'}, from a unikernel!\n`;
  if (event.rawBody.length > 0) {
    text += `You sent ${event.rawBody.length} bytes.\n`;
  }
  return {
    statusCode: 200,
    headers: { 'Content-Type': 'text/plain; charset=utf-8' },
    body: text,
  };
};
