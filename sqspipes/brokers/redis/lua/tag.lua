-- Changes a queue's tags, and returns all of them as JSON, or nil if there is no such queue. ARGV[3]: those to set, as
-- JSON. ARGV from 4 on: the names of those to remove. With nothing to change it only reads.
local queue = find(name)
if not queue then
  return false
end
local key = prefix .. ':tags'
local text, given = call('HGET', key, name) or '{}', cjson.decode(ARGV[3])
if next(given) or #ARGV > 3 then
  local tags = cjson.decode(text)
  for tag, value in pairs(given) do
    tags[tag] = value
  end
  for i = 4, #ARGV do
    tags[ARGV[i]] = nil
  end
  call('HDEL', key, name)
  text = '{}'
  if next(tags) then
    text = cjson.encode(tags)
    call('HSET', key, name, text)
  end
end
return text
