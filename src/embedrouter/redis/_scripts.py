"""The scripts of the accounts: each changes, or reads, several keys in one step.

Amounts are whole numbers of 10^-12 US dollars, as texts: a number of Lua is exact to 2^53 only. They are added by
Redis itself (``HINCRBY``, 64 bits) and compared here as texts. Names of models and tags are percent-encoded, so that
``|`` separates them. The clock is the server's, unless a test gives another.

A script that comes a second time with the same number changes nothing: its answer may have been lost, and clients
repeat commands.
"""

from __future__ import annotations

KEYS = (
    *("requests", "open", "settled", "released", "windows", "totals"),
    *("savings", "allowances", "estimates", "meta", "seen"),
)
"""Of the accounts, in the order in which the scripts take them.

``requests`` has the detail of each request by its number; ``open`` the numbers of those without a bill by the time when
they are unconfirmed (0: they are), ``settled`` and ``released`` the others by the time when they were made; ``windows``
what a day, a month and all days count, of everything and of each tag; the others are the tables of their names.
"""

_COMMON = """
local REQUESTS, OPEN, SETTLED, RELEASED, WINDOWS, TOTALS, SAVINGS, ALLOWANCES, ESTIMATES, META, SEEN = unpack(KEYS)
local AT, DAY, STATE, MODEL, INPUT_TYPE, TIER, TAG, TEXTS, PIECES = 1, 2, 3, 4, 5, 6, 7, 8, 9
local TOKENS, ESTIMATE, EXACT, AMOUNT, ATTEMPT, UNTIL, FREE, BILL = 10, 11, 12, 13, 14, 15, 16, 17
local call = redis.call

local function clock(given)
  if given ~= '' then return given end
  local time = call('TIME')
  return time[1] .. string.format('.%06d', time[2])
end

local function utc_day(seconds)
  local z = math.floor(seconds / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)
  yoe = math.floor(yoe / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local shifted = math.floor((5 * doy + 2) / 153)
  local month = shifted < 10 and shifted + 3 or shifted - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02d', year, month, doy - math.floor((153 * shifted + 2) / 5) + 1)
end

local function current_day(now)
  local latest, day = call('HGET', META, 'latest') or '', utc_day(now)
  return latest > day and latest or day
end

local function plus(a, b)  -- of whole numbers of 0 or more
  if #a <= 15 and #b <= 15 then return string.format('%.0f', a + b) end
  local low = tonumber(string.sub(a, -12)) + tonumber(string.sub(b, -12))
  local high = (tonumber(string.sub(a, 1, -13)) or 0) + (tonumber(string.sub(b, 1, -13)) or 0)
  if low >= 1e12 then high, low = high + 1, low - 1e12 end
  return string.format('%.0f%012.0f', high, low)
end

local function is_over(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

local function window(cap, day)
  return cap == 'per_day' and day or cap == 'per_month' and string.sub(day, 1, 7) or ''
end

local function count(day, tag, units)
  if units == '0' or units == '-0' then return end
  for _, name in ipairs({day, string.sub(day, 1, 7), ''}) do
    call('HINCRBY', WINDOWS, name .. '|', units)
    if tag ~= '' then call('HINCRBY', WINDOWS, name .. '|' .. tag, units) end
  end
  if day > (call('HGET', META, 'latest') or '') then call('HSET', META, 'latest', day) end
end

local function replace(day, tag, before, after)
  if before == after then return end
  if #before <= 15 and #after <= 15 then
    count(day, tag, string.format('%.0f', after - before))
  else
    count(day, tag, '-' .. before)
    count(day, tag, after)
  end
end

local function use(model, tokens)
  if tokens ~= 0 then call('HINCRBY', ALLOWANCES, model, string.format('%.0f', tokens)) end
end

local function without_free(units, token, tokens, free)
  if units == '' or free == 0 then return units end
  return string.format('%.0f', math.ceil(token * (tokens - free)))
end

local function find(number)
  local found = call('HGET', REQUESTS, number)
  return found and cjson.decode(found) or nil
end

local function keep(number, request) call('HSET', REQUESTS, number, cjson.encode(request)) end

local function is_lost(request, now)
  local state = request[STATE]
  return state == 'unconfirmed' or (state == 'reserved' and tonumber(request[UNTIL]) < tonumber(now))
end

local function lost(now) return call('ZRANGEBYSCORE', OPEN, '-inf', '(' .. now) end

local function unconfirmed(name, tag, now)
  local sum = '0'
  for _, number in ipairs(lost(now)) do
    local request = find(number)
    if request and request[AMOUNT] ~= '' and string.sub(request[DAY], 1, #name) == name
        and (tag == '' or request[TAG] == tag) then
      sum = plus(sum, request[AMOUNT])
    end
  end
  return sum
end

local function exceeded(first, units, now)  -- caps: tag, name and units of each, from ARGV[first] on
  local day = current_day(now)
  for place = first, #ARGV, 3 do
    local tag, cap, limit = ARGV[place], ARGV[place + 1], ARGV[place + 2]
    local name = window(cap, day)
    local counted = call('HGET', WINDOWS, name .. '|' .. tag) or '0'
    if is_over(plus(counted, units), limit) then
      return {(place - first) / 3, counted, units, unconfirmed(name, tag, now), day, now}
    end
  end
end

local function price_without_free(units, token, tokens, allowance)
  local left = allowance == 0 and 0 or math.max(0, allowance - (call('HGET', ALLOWANCES, ARGV[7]) or 0))
  local free = math.min(left, tokens)
  return without_free(units, token, tokens, free), free
end

local function add_to_totals(request)
  local row = table.concat({request[DAY], request[MODEL], request[TIER], request[INPUT_TYPE], request[TAG]}, '|')
  local amount, tokens = request[AMOUNT], request[TOKENS]
  local free = amount == '' and '0' or amount == '0' and tokens or request[FREE]
  call('HINCRBY', TOTALS, 'requests|' .. row, 1)
  local columns = {
    texts = request[TEXTS], pieces = request[PIECES], tokens = tokens, amount = amount == '' and '0' or amount,
    unpriced_tokens = amount == '' and tokens or '0', free_tokens = free
  }
  for _, name in ipairs({'texts', 'pieces', 'tokens', 'amount', 'unpriced_tokens', 'free_tokens'}) do
    if columns[name] ~= '0' then call('HINCRBY', TOTALS, name .. '|' .. row, columns[name]) end
  end
end

local function learn(request, billed, most)
  local estimate = tonumber(request[ESTIMATE])
  if request[EXACT] == '' or estimate <= 0 then return end
  local row = table.concat({request[MODEL], request[INPUT_TYPE], request[EXACT]}, '|')
  local names = {'requests|' .. row, 'estimated|' .. row, 'billed|' .. row, 'exceeded|' .. row}
  local before, further = call('HMGET', ESTIMATES, unpack(names)), {1, estimate, billed, billed > estimate and 1 or 0}
  local share = tonumber(before[1] or 0) >= most and 2 or 1
  for place, name in ipairs(names) do
    local sum = math.floor(tonumber(before[place] or 0) / share) + further[place]
    call('HSET', ESTIMATES, name, string.format('%.0f', sum))
  end
end

local function settle(number, tokens, units, token, bill, reported, most)
  local request = find(number)
  if not request then return nil end
  if request[STATE] == 'settled' then return {request[TOKENS], request[FREE]} end
  local before = request[STATE] == 'released' and '0' or request[AMOUNT] == '' and '0' or request[AMOUNT]
  local aside = tonumber(request[FREE])
  local free = math.min(aside, tokens)
  local amount = without_free(units, token, tokens, free)
  replace(request[DAY], request[TAG], before, amount == '' and '0' or amount)
  use(request[MODEL], free - aside)
  if reported and bill == '' then learn(request, tokens, most) end
  request[STATE], request[TOKENS], request[AMOUNT] = 'settled', string.format('%.0f', tokens), amount
  request[FREE], request[BILL] = string.format('%.0f', free), bill
  keep(number, request)
  call('ZREM', OPEN, number)
  call('ZREM', RELEASED, number)
  call('ZADD', SETTLED, request[AT], number)
  add_to_totals(request)
  return {request[TOKENS], request[FREE]}
end

local function release(number, now)
  local request = find(number)
  if not request or request[STATE] == 'settled' or request[STATE] == 'released' then return 0 end
  replace(request[DAY], request[TAG], request[AMOUNT] == '' and '0' or request[AMOUNT], '0')
  use(request[MODEL], -tonumber(request[FREE]))
  call('ZREM', OPEN, number)
  if is_lost(request, now) then
    request[STATE], request[FREE] = 'released', '0'
    keep(number, request)
    call('ZADD', RELEASED, request[AT], number)
  else
    call('HDEL', REQUESTS, number)
  end
  return 1
end

local function confirm(number, now)
  local request = find(number)
  if not request or not is_lost(request, now) then return 0 end
  request[STATE] = 'settled'
  keep(number, request)
  call('ZREM', OPEN, number)
  call('ZADD', SETTLED, request[AT], number)
  add_to_totals(request)
  return 1
end

local function remove(index, numbers)
  if #numbers == 0 then return end
  call('HDEL', REQUESTS, unpack(numbers))
  call('ZREM', index, unpack(numbers))
end
"""

OPEN = (
    _COMMON
    + """
-- ARGV: version
local found = call('HGET', META, 'version')
if found and found ~= ARGV[1] then return found end
call('HSET', META, 'version', ARGV[1])
for _, key in ipairs({REQUESTS, WINDOWS, TOTALS, SAVINGS, ALLOWANCES, ESTIMATES}) do
  call('HGET', key, '-')
  call('HMGET', key, '-')
  call('HEXISTS', key, '-')
  call('HGETALL', META)
  call('HDEL', key, '-')
end
call('HINCRBY', META, 'probe', 0)
for _, key in ipairs({OPEN, SETTLED, RELEASED, SEEN}) do
  call('ZADD', key, 'NX', 0, '-')
  call('ZREM', key, '-')
  call('ZRANGEBYSCORE', key, '-inf', '(0')
  call('ZRANGE', key, 0, 0)
  call('ZCARD', key)
end
call('ZREMRANGEBYSCORE', SEEN, '-inf', '(-1')
call('TIME')
return ARGV[1]
"""
)
"""Checks the version of the accounts, and that this user may use every command: one that is refused in the middle of
a script would leave what was done before."""

RESERVE = (
    _COMMON
    + """
-- ARGV: now, number, 'within', 'anyway' or 'late', seconds until it is lost, units, units of one token, model,
-- free tokens of the model, tokens, the rest of the request, caps
local now, number, how = clock(ARGV[1]), ARGV[2], ARGV[3]
if call('HEXISTS', REQUESTS, number) == 1 then return {} end
local tokens = tonumber(ARGV[9])
local units, free = price_without_free(ARGV[5], tonumber(ARGV[6]), tokens, tonumber(ARGV[8]))
if how == 'within' and units ~= '0' then
  local refusal = exceeded(11, units, now)
  if refusal then return refusal end
end
local rest = cjson.decode(ARGV[10])
local day = how == 'late' and utc_day(now) or current_day(now)
local till = string.format('%.6f', now + ARGV[4])
local request = {
  now, day, 'reserved', ARGV[7], rest[1], rest[2], rest[3], rest[4], rest[5], ARGV[9], ARGV[9], rest[6], units, rest[7],
  till, string.format('%.0f', free), ''
}
keep(number, request)
call('ZADD', OPEN, till, number)
if units ~= '' then count(day, rest[3], units) end
use(ARGV[7], free)
return {}
"""
)

REFUSAL = (
    _COMMON
    + """
-- ARGV: now, units, caps
return exceeded(3, ARGV[2], clock(ARGV[1])) or {}
"""
)

SETTLE = (
    _COMMON
    + """
-- ARGV: number, tokens, units, units of one token, bill, whether it was reported, how many requests are remembered
return settle(ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6] == '1', tonumber(ARGV[7])) or {}
"""
)

RELEASE = _COMMON + "return release(ARGV[2], clock(ARGV[1]))"

CONFIRM = _COMMON + "return confirm(ARGV[2], clock(ARGV[1]))"

CHANGE_OLDER = (
    _COMMON
    + """
-- ARGV: now, 'release' or 'confirm', age
local now, changed = clock(ARGV[1]), 0
for _, number in ipairs(lost(now)) do
  if tonumber(find(number)[AT]) < now - ARGV[3] then
    changed = changed + (ARGV[2] == 'release' and release or confirm)(number, now)
  end
end
return changed
"""
)

MARK_UNCONFIRMED = (
    _COMMON
    + """
local request = find(ARGV[1])
if not request or request[STATE] ~= 'reserved' then return 0 end
request[STATE] = 'unconfirmed'
keep(ARGV[1], request)
call('ZADD', OPEN, 0, ARGV[1])
return 1
"""
)

SAVE = (
    _COMMON
    + """
-- ARGV: now, parcel, seconds for which a parcel is remembered, then day, model, tag, texts, tokens and units of each
local now = clock(ARGV[1])
call('ZREMRANGEBYSCORE', SEEN, '-inf', '(' .. string.format('%.6f', now - ARGV[3]))
if call('ZADD', SEEN, 'NX', now, ARGV[2]) == 0 then return 0 end
for place = 4, #ARGV, 6 do
  local row = table.concat({ARGV[place], ARGV[place + 1], ARGV[place + 2]}, '|')
  call('HINCRBY', SAVINGS, 'texts|' .. row, ARGV[place + 3])
  call('HINCRBY', SAVINGS, 'tokens|' .. row, ARGV[place + 4])
  call('HINCRBY', SAVINGS, 'amount|' .. row, ARGV[place + 5])
end
return 1
"""
)

FOLD = (
    _COMMON
    + """
-- ARGV: now, 'settled' or 'released', age, how many at once, how many are kept at most
local index, at_once = ARGV[2] == 'settled' and SETTLED or RELEASED, tonumber(ARGV[4])
local before = string.format('%.6f', clock(ARGV[1]) - ARGV[3])
local numbers = call('ZRANGEBYSCORE', index, '-inf', '(' .. before, 'LIMIT', 0, at_once)
local further = math.min(call('ZCARD', index) - tonumber(ARGV[5]), at_once)
if further > #numbers then numbers = call('ZRANGE', index, 0, further - 1) end
remove(index, numbers)
return #numbers
"""
)

READ = (
    _COMMON
    + """
-- ARGV: version, names of tables
local version = call('HGET', META, 'version') or ARGV[1]
if version ~= ARGV[1] then return {version} end
local keys = {
  totals = TOTALS, savings = SAVINGS, allowances = ALLOWANCES, estimates = ESTIMATES, windows = WINDOWS
}
local found = {version}
for place = 2, #ARGV do
  if ARGV[place] == 'open' then
    local requests = {}
    for _, index in ipairs({OPEN, RELEASED}) do
      for _, number in ipairs(call('ZRANGE', index, 0, -1)) do
        requests[#requests + 1] = number
        requests[#requests + 1] = call('HGET', REQUESTS, number)
      end
    end
    found[#found + 1] = requests
  else
    found[#found + 1] = call('HGETALL', keys[ARGV[place]])
  end
end
return found
"""
)
