/**
 * Domain names as an owner writes them, and the names that follow from them: lower-case ASCII, each once, and
 * the S2 basin that is called like the main one.
 */
import { domainToASCII } from 'node:url';

const MAX_DOMAINS = 100;
const DOMAIN =
  /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
/** What `domainToASCII` may see: it would cut at `/`, `?` and `#`, and decode `%41`. */
const DOMAIN_INPUT = /^(?:[a-z0-9.-]|[^\p{ASCII}\p{C}\p{Z}])+$/iu;
/** https://s2.dev/docs: 8 to 48 of these, with a letter or digit at both ends. */
const BASIN = /^[a-z0-9][a-z0-9-]{6,46}[a-z0-9]$/;

/** Of a list with commas; null where one is no domain. */
export function domainsFrom(list: string): string[] | null {
  const inputs = list.split(',').map((input) => input.trim());
  const domains = inputs.map((input) =>
    DOMAIN_INPUT.test(input) ? domainToASCII(input).replace(/\.$/, '') : '',
  );
  if (domains.length > MAX_DOMAINS || !domains.every((domain) => DOMAIN.test(domain))) return null;
  return [...new Set(domains)];
}

/** True for a name that a basin may have. */
export function isBasinName(name: string): boolean {
  return BASIN.test(name);
}

/** The main domain with hyphens for dots. It may be too short or too long for a basin. */
export function basinFrom(domains: readonly string[]): string {
  return (domains[0] ?? '').replaceAll('.', '-');
}
