//! What a Lambda function has posted, as the gateway makes an answer of it.

pub(crate) fn run(bytes: &[u8]) {
    spore_gateway::fuzz_lambda_answer(bytes);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"statusCode":200,"headers":{"content-type":"text/html","x-n":1},"body":"hi"}"#,
        r#"{"statusCode":201,"multiValueHeaders":{"a":["b",true,null]},"cookies":["c=d"],"body":"AP8=","isBase64Encoded":true}"#,
        r#"{"statusCode":99,"headers":null,"cookies":null,"body":null}"#,
        r#"{"statusCode":200,"headers":{"transfer-encoding":"chunked","content-length":"5","connection":"a","a":"b"}}"#,
        r#"{"statusCode":200,"statusCode":201}"#,
        r#"{"errorMessage":"no","errorType":"Bad","stackTrace":["a"]}"#,
        r#"{"message":"hi"}"#,
        r#"[1,"two",{"three":4.5e6}]"#,
        "\"text\"",
        "[[[[[[[[[[[[[[[[",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
