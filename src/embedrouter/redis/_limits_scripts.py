"""The scripts of the shared limits.

State, in keys with one hash tag:

    state      numbers: sums of the window and of the requests in flight for each quota (1 requests, 2 texts, 3 tokens),
               the oldest and newest bucket of each, the pace, the virtual time of the queue, what followed HTTP 429,
               and reported limits
    queue      waiting tickets by their virtual start
    alive      waiting tickets by the time at which they lose their place
    flight     tickets in flight by the end of their lease
    tickets    what a ticket asks for
    workers    the virtual time at which each worker's last request ends
    seen       workers of the last minute
    requests, texts, tokens    what was answered in the last minute, in buckets of a quarter of a second

The queue is start-time fair queueing. A request begins, in virtual time, where its worker's last one ends, and not
before the virtual time of the request that was admitted last; the least start goes first. Its length is its share of
the scarcest quota. A worker alone may use a whole limit at once. Of several, each may send its share at once, and the
rest is paced: otherwise the first would take the whole minute before the others had asked a second time.
"""

COMMON = """
local STATE, QUEUE, ALIVE, FLIGHT, TICKETS, WORKERS, SEEN = unpack(KEYS, 1, 7)
local WIDTH = 0.25  -- seconds of a bucket
local call = redis.call

local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = call('TIME')
  return time[1] + time[2] / 1e6
end

local state, changed = {}, {}  -- read once, and written once
local told = call('HGETALL', STATE)
for index = 1, #told, 2 do state[told[index]] = told[index + 1] end
local function text(field) return state[field] or nil end
local function get(field) return tonumber(state[field] or nil) end
local function put(field, value) state[field], changed[field] = value, true end  -- false removes it
local function set(field, number) put(field, string.format('%.9f', number)) end
local function add(field, number) if number ~= 0 then set(field, (get(field) or 0) + number) end end
local function bucket(time) return math.floor(time / WIDTH) end
local function name(number) return string.format('%.0f', number) end
local now = clock(ARGV[1])

-- What a ticket asks for: texts, tokens, its share of a limit, the seconds by which it moves the pace, whether these
-- follow from its tokens, and when it was admitted.
local function read(ticket)
  local told = call('HGET', TICKETS, ticket)
  if not told then return nil end
  local texts, tokens, share, pace, by_tokens, at = string.match(told, '(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')
  return {1, tonumber(texts), tonumber(tokens), share = tonumber(share), pace = tonumber(pace),
          by_tokens = by_tokens == '1', at = tonumber(at)}
end
local function write(ticket, asked)
  call('HSET', TICKETS, ticket, string.format('%d %d %.9f %.6f %d %.6f', asked[2], asked[3], asked.share, asked.pace,
       asked.by_tokens and 1 or 0, asked.at))
end

-- Count an amount that was answered now.
local function arrive(quota, amount)
  if amount == 0 then return end
  local oldest, newest = get('oldest' .. quota), get('newest' .. quota)
  local place = math.max(bucket(now), oldest or -math.huge)  -- the clock may have been set back
  call('HINCRBY', KEYS[7 + quota], name(place), amount)
  add('window' .. quota, amount)
  if not oldest then set('oldest' .. quota, place) end
  if not newest or place > newest then set('newest' .. quota, place) end
end

local function land(ticket, asked)
  call('ZREM', FLIGHT, ticket)
  add('flight2', -asked[2])
  add('flight3', -asked[3])
end

-- Count requests whose lease has ended as answered, and drop tickets of workers that ask no more.
local function sweep()
  for _, ticket in ipairs(call('ZRANGEBYSCORE', FLIGHT, '-inf', now, 'LIMIT', 0, 1000)) do
    local asked = read(ticket)
    if asked then
      land(ticket, asked)
      for quota = 1, 3 do arrive(quota, asked[quota]) end
    end
    call('ZREM', FLIGHT, ticket)
    call('HDEL', TICKETS, ticket)
  end
  for _, ticket in ipairs(call('ZRANGEBYSCORE', ALIVE, '-inf', now, 'LIMIT', 0, 1000)) do
    call('ZREM', ALIVE, ticket)
    call('ZREM', QUEUE, ticket)
    call('HDEL', TICKETS, ticket)
  end
end

local function save()
  local set_to, removed = {}, {}
  for field, _ in pairs(changed) do
    if state[field] then
      set_to[#set_to + 1], set_to[#set_to + 2] = field, state[field]
    else
      removed[#removed + 1] = field
    end
  end
  if #set_to > 0 then call('HSET', STATE, unpack(set_to)) end
  if #removed > 0 then call('HDEL', STATE, unpack(removed)) end
end
"""

ADMIT = (
    COMMON
    + """
local ticket, worker, texts, tokens, lease = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local patience, MINUTE, unknown = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local instant, concurrency = tonumber(ARGV[10]), tonumber(ARGV[11])
local longest = patience / 3  -- that a ticket waits until it is asked with again, so that it keeps its place
local refusals = get('refusals') or 0

if call('ZSCORE', FLIGHT, ticket) then return {'0', '', refusals, ''} end  -- admitted before; the answer was lost
sweep()

-- The limits: declared, else as a provider has reported.
local limit, period = {}, {}
for quota = 1, 3 do
  limit[quota], period[quota] = tonumber(ARGV[10 + 2 * quota]), tonumber(ARGV[11 + 2 * quota])
  if not limit[quota] then
    limit[quota], period[quota] = get('limit' .. quota), get('period' .. quota) or MINUTE
  end
end

-- Forget what is older than its period.
for quota = 1, 3 do
  local oldest, newest = get('oldest' .. quota), get('newest' .. quota)
  local last = math.floor((now - period[quota]) / WIDTH) - 1
  if oldest and last >= newest then
    call('DEL', KEYS[7 + quota])
    for _, field in ipairs({'oldest', 'newest', 'window'}) do put(field .. quota, false) end
  elseif oldest and last >= oldest then
    local names, gone = {}, 0
    for place = oldest, last do names[#names + 1] = name(place) end
    for _, amount in ipairs(call('HMGET', KEYS[7 + quota], unpack(names))) do gone = gone + (tonumber(amount) or 0) end
    call('HDEL', KEYS[7 + quota], unpack(names))
    add('window' .. quota, -gone)
    set('oldest' .. quota, last + 1)
  end
end

-- The place in the queue.
local asked = read(ticket)
local virtual = get('virtual') or 0
if not asked then
  asked = {1, texts, tokens, share = 0, pace = 0, by_tokens = false, at = 0}
  for quota = 1, 3 do
    if limit[quota] then
      local share = math.min(1, asked[quota] / limit[quota])
      if share >= asked.share then
        asked.share, asked.pace, asked.by_tokens = share, share * period[quota], quota == 3
      end
    end
  end
  if asked.share == 0 then asked.share = tokens / 1e6 end
  local start = tonumber(ARGV[18])  -- of the place that it had, and lost because it was not asked with
  if not start then
    start = math.max(virtual, tonumber(call('ZSCORE', WORKERS, worker)) or 0)
    call('ZADD', WORKERS, string.format('%.9f', start + asked.share), worker)
  end
  call('ZADD', QUEUE, string.format('%.9f', start), ticket)
  write(ticket, asked)
end
call('ZADD', ALIVE, now + patience, ticket)
call('ZADD', SEEN, now, worker)
call('ZREMRANGEBYSCORE', SEEN, '-inf', now - MINUTE)
local start = tonumber(call('ZSCORE', QUEUE, ticket))

-- What goes first.
local rank = call('ZRANK', QUEUE, ticket)
local ahead = {0, 0, 0, pace = 0}
if rank > 0 then
  for _, other in ipairs(call('ZRANGE', QUEUE, 0, math.min(rank, 200) - 1)) do
    local before = read(other)
    if before then
      for quota = 1, 3 do ahead[quota] = ahead[quota] + math.min(before[quota], limit[quota] or before[quota]) end
      ahead.pace = ahead.pace + before.pace
    end
  end
end

local wait, reason = 0, ''
local function hold(seconds, why)
  if seconds > wait then wait, reason = seconds, why end
end
local in_flight = call('ZCARD', FLIGHT)
local flight = {in_flight, get('flight2') or 0, get('flight3') or 0}

-- After HTTP 429: wait, then one request finds out for all.
local held = get('held')
if held and held > now then hold(held - now, '429') end
if refusals > 0 then
  local probe = text('probe')
  if probe and call('ZSCORE', FLIGHT, probe) then hold(math.min(1, 0.1 * (1 + rank)), '429') end
end

if concurrency and in_flight + rank >= concurrency then hold(math.min(1, 0.05 * (1 + rank)), 'slot') end

for quota = 1, 3 do
  if limit[quota] then
    local own = math.min(asked[quota], limit[quota])
    local missing = ahead[quota] + own + (get('window' .. quota) or 0) + flight[quota] - limit[quota]
    if missing > 0 then
      local seconds, oldest = 1, get('oldest' .. quota)
      if oldest then
        local last = math.floor((now + 1 - period[quota]) / WIDTH) - 1
        local names = {}
        for place = oldest, last do names[#names + 1] = name(place) end
        if #names > 0 then
          for index, amount in ipairs(call('HMGET', KEYS[7 + quota], unpack(names))) do
            missing = missing - (tonumber(amount) or 0)
            if missing <= 0 then
              seconds = math.max(0.001, (oldest + index) * WIDTH + period[quota] - now)
              break
            end
          end
        end
      end
      hold(math.min(longest, seconds * (1 + rank / 20)), 'rate')
    end
  elseif quota == 3 and flight[3] > 0 and flight[3] + tokens > unknown and not get('answered') then
    hold(0.05, 'rate')  -- the first answer may report the limit
  end
end

-- The pace: each worker's share may go at once.
if asked.pace > 0 then
  local share = asked.pace / asked.share / math.max(1, call('ZCARD', SEEN))
  local early = (get('pace') or 0) + ahead.pace - share - now
  if early > 0 then hold(early <= 1 and early or math.min(longest, math.max(1, early / 2)), 'rate') end
end

if wait > instant then
  save()
  return {string.format('%.6f', wait), reason, refusals, string.format('%.9f', start)}
end
call('ZREM', QUEUE, ticket)
call('ZREM', ALIVE, ticket)
call('ZADD', FLIGHT, now + lease, ticket)
add('flight2', asked[2])
add('flight3', asked[3])
asked.at = now
write(ticket, asked)
if start > virtual then
  set('virtual', start)
  call('ZREMRANGEBYSCORE', WORKERS, '-inf', start)
end
set('pace', math.max(get('pace') or 0, now - 2) + asked.pace)  -- two seconds that were not used are made up for
if refusals > 0 then put('probe', ticket) end
save()
return {'0', '', refusals, ''}
"""
)

END = (
    COMMON
    + """
local ticket, outcome, billed, hold, forgotten = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local worker = ARGV[13]
sweep()
local asked = read(ticket)
if asked then
  call('HDEL', TICKETS, ticket)
  if outcome == 'unsent' and call('ZSCORE', WORKERS, worker) then
    call('ZINCRBY', WORKERS, string.format('%.9f', -asked.share), worker)
  end
  if call('ZREM', QUEUE, ticket) == 1 then
    call('ZREM', ALIVE, ticket)
  else
    land(ticket, asked)
    local unused = 1  -- the share of the estimate
    if outcome ~= 'unsent' then
      unused = 0
      if asked.by_tokens and billed and asked[3] > 0 then unused = 1 - billed / asked[3] end
      arrive(1, 1)
      arrive(2, asked[2])
      arrive(3, billed or asked[3])
    end
    if unused ~= 0 then set('pace', (get('pace') or 0) - asked.pace * unused) end
    local refusals = get('refusals') or 0
    if outcome == 'answered' then
      if not get('answered') then set('answered', 1) end
      if refusals > 0 and asked.at >= (get('refused at') or 0) then
        for _, field in ipairs({'refusals', 'refused at', 'probe'}) do put(field, false) end
      end
    elseif outcome == 'refused' then
      if refusals == 0 or text('probe') == ticket then
        set('refusals', refusals + 1)
        set('refused at', now)
      end
      set('held', math.max(get('held') or 0, now + hold))
    end
  end
end
for quota = 1, 3 do
  local limit = tonumber(ARGV[5 + 2 * quota])
  if limit then
    set('limit' .. quota, limit)
    set('period' .. quota, tonumber(ARGV[6 + 2 * quota]))
  end
end
save()
for _, key in ipairs(KEYS) do call('EXPIRE', key, forgotten) end
return 1
"""
)
