/** Errors in Resend's form: `{statusCode, name, message}` under the same HTTP status. */
export class ApiError extends Error {
  readonly status: number;
  readonly apiName: string;
  readonly headers: Record<string, string>;

  constructor(status: number, apiName: string, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.status = status;
    this.apiName = apiName;
    this.headers = headers;
  }

  toResponse(): Response {
    const body = { statusCode: this.status, name: this.apiName, message: this.message };
    return Response.json(body, { status: this.status, headers: this.headers });
  }
}
